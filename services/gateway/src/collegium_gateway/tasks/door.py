"""The task endpoints but the submitting one: get, list, cancel, events."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

from collegium_contracts.ids import TASK_ID
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.answering import MAX_BODY_BYTES, decode_input
from collegium_gateway.readmodel.rows import STATES, State
from collegium_gateway.tasks import feedback
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.events import TaskEvents
from collegium_gateway.tasks.views import view_headers

MAX_PAGE = 200
# Decimal digits that fit 64 bits.
_NUMBER = re.compile(r"[0-9]{1,18}")


class TaskDoor:
    """The task endpoints over HTTP."""

    def __init__(self, platform: Platform, directory: Directory, tasks: Tasks) -> None:
        self._platform = platform
        self._directory = directory
        self._tasks = tasks

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/tasks", self._list, methods=["GET"]),
            Route("/v1/tasks/{id}", self._get, methods=["GET"]),
            Route("/v1/tasks/{id}/cancel", self._cancel, methods=["POST"]),
            Route("/v1/tasks/{id}/feedback", self._feedback, methods=["POST"]),
            Route("/v1/tasks/{id}/input", self._input, methods=["POST"]),
            Route("/v1/tasks/{id}/events", self._events, methods=["GET"]),
        ]

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need("tasks")
        return principal

    async def _get(self, request: Request) -> Response:
        view = await self._tasks.get(self._principal(request), request.path_params["id"])
        return json_reply(view, headers=view_headers(view))

    async def _list(self, request: Request) -> Response:
        principal = self._principal(request)
        query = request.query_params
        views, more = await self._tasks.page(
            principal,
            state=_state_of(query.get("state")),
            since_ms=_since_of(query.get("since")),
            before=cursor_of(query.get("cursor")),
            limit=_limit_of(query.get("limit")),
        )
        return json_reply({"data": views, "next_cursor": cursor(more) if more is not None else None})

    async def _cancel(self, request: Request) -> Response:
        view = await self._tasks.cancel(self._principal(request), request.path_params["id"])
        return json_reply(view, headers=view_headers(view))

    async def _feedback(self, request: Request) -> Response:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        feedback.check_principal(principal)
        body = await asgi.read_body(request.scope, request.receive, feedback.MAX_BODY_BYTES)
        asked = parse(feedback.decode, body)
        settled = await self._tasks.settled(principal, request.path_params["id"])
        with self._platform.tracing.root(
            "POST /v1/tasks/{id}/feedback",
            "server",
            incoming_traceparent=request.headers.get("traceparent"),
            attributes=None,
        ) as hop:
            told = await feedback.give(self._platform, principal, settled, asked, hop.traceparent)
        return json_reply(told, 201, {"traceparent": hop.traceparent})

    async def _input(self, request: Request) -> Response:
        principal = self._principal(request)
        asked = parse(decode_input, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        with self._platform.tracing.root(
            "POST /v1/tasks/{id}/input",
            "server",
            incoming_traceparent=request.headers.get("traceparent"),
            attributes=None,
        ) as hop:
            view = await self._tasks.provide_input(principal, request.path_params["id"], asked, hop.traceparent)
        return json_reply(view, headers={**view_headers(view), "traceparent": hop.traceparent})

    async def _events(self, request: Request) -> Response:
        principal = self._principal(request)
        view = await self._tasks.get(principal, request.path_params["id"])
        after = _last_event_of(request.headers.get("last-event-id"))
        events = TaskEvents(self._platform, self._tasks.queue, principal.tenant, view, after)
        headers = [*asgi.ids(request.scope), (b"x-collegium-task-id", view.id.encode())]
        return _EventResponse(events, headers)


class _EventResponse(Response):
    """A response that is served by :class:`TaskEvents`."""

    def __init__(self, events: TaskEvents, headers: asgi.Headers) -> None:
        super().__init__()
        self._events = events
        self._event_headers = headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._events.serve(receive, send, self._event_headers)


def _state_of(text: str | None) -> State | None:
    if text is None or text == "":
        return None
    for state in STATES:
        if state == text:
            return state
    raise ApiError("invalid_value", f"state must be one of {', '.join(STATES)}", param="state")


def _since_of(text: str | None) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError("invalid_value", "since must be a time in RFC 3339", param="since") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _limit_of(text: str | None) -> int:
    if not text:
        return 50
    if _NUMBER.fullmatch(text) is None or not 1 <= int(text) <= MAX_PAGE:
        raise ApiError("invalid_value", f"limit must be between 1 and {MAX_PAGE}", param="limit")
    return int(text)


def cursor(position: tuple[int, str]) -> str:
    """Writes where a page of tasks ended."""
    return base64.urlsafe_b64encode(f"{position[0]}.{position[1]}".encode()).decode().rstrip("=")


def cursor_of(text: str | None) -> tuple[int, str] | None:
    """Reads where a page of tasks ended; raises ApiError for what no list returned."""
    if not text:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        plain = ""
    created, _, task_id = plain.partition(".")
    if _NUMBER.fullmatch(created) is None or TASK_ID.match(task_id) is None:
        raise ApiError("invalid_value", "cursor is not one that a list returned", param="cursor")
    return int(created), task_id


def _last_event_of(text: str | None) -> int:
    if not text:
        return 0
    if _NUMBER.fullmatch(text) is None:
        raise ApiError("invalid_value", "Last-Event-ID must be an id that an event carried", param="Last-Event-ID")
    return int(text)
