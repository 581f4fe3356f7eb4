"""The door to the dead letters: list, show, requeue, discard; and to running a failed task again.

Operators see letters of all tenants, with their original bytes in base64 where they ask for one; the summary beside it
names tasks and models and shows no content. A tenant may run its own failed tasks again. One rule: a filter is exact,
so that a tenant's name never matches another's.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from collegium_bus.errors import BusError
from collegium_bus.letters import Letter, LetterFilter, Page
from collegium_contracts import codec
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import TASK_ID, TENANT_ID
from collegium_contracts.journey import SERVICES
from collegium_runtime.platform import Platform
from collegium_telemetry.traceparent import parse as parse_traceparent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating.requeue import Outcome, Requeue
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.views import rfc3339
from collegium_gateway.webhooks.store import WebhookStore

MAX_BODY_BYTES = 64 * 1024
MAX_PAGE = 200
# Letters of one action: each is a few round trips, and the client waits for all of them.
MAX_ACTION = 500
_SEQUENCE = re.compile(r"[0-9]{1,18}")
_CAUSE = re.compile(r"[a-z0-9_]{1,64}\Z")


class FilterRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters are meant; none of the fields means all letters. An empty ``tenant`` means: of no known tenant."""

    service: str | None = None
    tenant: str | None = None
    cause: str | None = None
    task: str | None = None
    since: str | None = None


class LettersRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/dead-letters/requeue`` and ``/discard``: ids, or a filter with a limit."""

    ids: list[int] | None = None
    filter: FilterRequest | None = None
    limit: int = 100
    dry_run: bool = False


_decode = msgspec.json.Decoder(LettersRequest)


class DeadLetterDoor:
    """Dead letters over HTTP."""

    def __init__(self, platform: Platform, directory: Directory, tasks: Tasks, webhooks: WebhookStore) -> None:
        self._directory = directory
        self._requeue = Requeue(platform, tasks, webhooks)

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/dead-letters", self._list, methods=["GET"]),
            Route("/v1/admin/dead-letters/requeue", self._requeue_many, methods=["POST"]),
            Route("/v1/admin/dead-letters/discard", self._discard_many, methods=["POST"]),
            Route("/v1/admin/dead-letters/{id}", self._show, methods=["GET"]),
            Route("/v1/tasks/{id}/retry", self._retry, methods=["POST"]),
        ]

    def _principal(self, request: Request, scope: str = "admin") -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need(scope)
        return principal

    async def _list(self, request: Request) -> Response:
        self._principal(request)
        query = request.query_params
        asked = FilterRequest(**{name: query.get(name) for name in FilterRequest.__struct_fields__})
        limit = _number(query.get("limit") or "50", "limit", 1, MAX_PAGE)
        after = _number(query.get("cursor") or "0", "cursor", 0, 2**63 - 1)
        page = await self._page(letter_filter(asked), after, limit)
        cursor = str(page.next_after) if page.next_after is not None else None
        return json_reply({"data": [row(letter) for letter in page.letters], "next_cursor": cursor})

    async def _show(self, request: Request) -> Response:
        self._principal(request)
        sequence = _number(request.path_params["id"], "id", 1, 2**63 - 1)
        try:
            letter = await self._requeue.box.get(sequence)
        except BusError as error:
            raise from_bus(error, f"dead letter {sequence}") from error
        if letter is None:
            raise ApiError(
                "not_found", f"there is no dead letter {sequence}; it may be requeued or discarded", param="id"
            )
        return json_reply(shown(letter))

    async def _requeue_many(self, request: Request) -> Response:
        return await self._act(request, self._requeue.requeue)

    async def _discard_many(self, request: Request) -> Response:
        return await self._act(request, self._requeue.discard)

    async def _act(self, request: Request, action: Any) -> Response:
        principal = self._principal(request)
        asked = parse(_decode, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        sequences, more = await self._sequences(asked)
        outcomes: list[Outcome] = [await action(principal, sequence, dry_run=asked.dry_run) for sequence in sequences]
        return json_reply({"data": outcomes, "dry_run": asked.dry_run, "more": more})

    async def _sequences(self, asked: LettersRequest) -> tuple[list[int], bool]:
        """Returns the letters that an action means, oldest first, and whether there may be more of them."""
        if (asked.ids is None) == (asked.filter is None):
            raise ApiError("invalid_value", "give either ids or a filter ({} means every letter)", param="ids")
        if not 1 <= asked.limit <= MAX_ACTION:
            raise ApiError("invalid_value", f"limit must be between 1 and {MAX_ACTION}", param="limit")
        if asked.filter is None:
            ids = list(dict.fromkeys(asked.ids or ()))
            if len(ids) > MAX_ACTION or any(not 0 < one < 2**63 for one in ids):
                raise ApiError("invalid_value", f"ids: at most {MAX_ACTION}, each a letter's number", param="ids")
            return ids, False
        wanted = letter_filter(asked.filter)
        found: list[int] = []
        after: int | None = 0
        while after is not None and len(found) < asked.limit:
            page = await self._page(wanted, after, asked.limit - len(found))
            found += [letter.sequence for letter in page.letters]
            after = page.next_after
        return found, after is not None

    async def _page(self, wanted: LetterFilter, after: int, limit: int) -> Page:
        try:
            return await self._requeue.box.page(wanted, after=after, limit=limit)
        except BusError as error:
            raise from_bus(error, "the list of dead letters") from error

    async def _retry(self, request: Request) -> Response:
        principal = self._principal(request, "tasks")
        view, made = await self._requeue.retry(principal, request.path_params["id"])
        return json_reply(view, 202 if made else 200, {"location": f"/v1/tasks/{view.id}"})


def letter_filter(asked: FilterRequest) -> LetterFilter:
    """Returns the filter that was asked for; raises ApiError for what is no id, so that nothing becomes a wildcard."""
    if asked.service and asked.service not in SERVICES:
        raise ApiError("invalid_value", f"service must be one of {', '.join(SERVICES)}", param="service")
    if asked.tenant and TENANT_ID.match(asked.tenant) is None:
        raise ApiError("invalid_value", "tenant must be the id of a tenant", param="tenant")
    if asked.task and TASK_ID.match(asked.task) is None:
        raise ApiError("invalid_value", "task must be the id of a task (tsk_…)", param="task")
    if asked.cause and _CAUSE.match(asked.cause) is None:
        raise ApiError("invalid_value", "cause must be a letter's cause, for instance task_failed", param="cause")
    return LetterFilter(
        service=asked.service or "",
        tenant=asked.tenant,
        cause=asked.cause or "",
        task=asked.task or "",
        since_ms=_since(asked.since),
    )


def row(letter: Letter) -> dict[str, Any]:
    """Returns a letter as lists show it."""
    content = letter.content
    known = {"id": letter.sequence, "service": letter.service, "tenant": letter.tenant or None}
    if content is None:
        return {**known, "cause": "letter_unreadable", "detail": letter.unreadable}
    trace = parse_traceparent(content.known.traceparent)
    return {
        **known,
        "cause": content.cause,
        "code": content.known.code or None,
        "detail": content.detail,
        "at": rfc3339(content.at_ms),
        "subject": content.subject,
        "stream": content.stream or None,
        "sequence": content.sequence or None,
        "consumer": content.known.consumer or None,
        "delivery": content.delivery or None,
        "kind": content.known.kind or None,
        "task": content.known.task_id or None,
        "attempt": content.known.attempt or None,
        "trace_id": trace[0] if trace is not None else None,
        "bytes": len(content.payload),
    }


def shown(letter: Letter) -> dict[str, Any]:
    """Returns a letter as it is shown by itself: with its original bytes, its headers, and what can be told of them."""
    content = letter.content
    if content is None:
        return row(letter)
    payload = base64.b64encode(content.payload).decode()
    return {**row(letter), "headers": content.headers, "payload_base64": payload, "message": summary(content.payload)}


def summary(payload: bytes) -> dict[str, Any] | None:
    """Returns what a message says, without anything that a person or a model wrote; none where it cannot be read."""
    try:
        message = codec.journey.decode(payload)
    except ContractError:
        return None
    built = _masked(msgspec.to_builtins(message, builtin_types=(bytes,)))
    assert isinstance(built, dict), "a message is a map"
    return built


def _masked(value: Any) -> Any:
    """Replaces bytes, in which content is sealed, by their number."""
    if isinstance(value, bytes):
        return f"‹{len(value)} bytes›"
    if isinstance(value, dict):
        return {name: _masked(part) for name, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_masked(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _number(text: str, name: str, low: int, high: int) -> int:
    if _SEQUENCE.fullmatch(text) is None or not low <= int(text) <= high:
        raise ApiError("invalid_value", f"{name} must be a number between {low} and {high}", param=name)
    return int(text)


def _since(text: str | None) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError("invalid_value", "since must be a time in RFC 3339", param="since") from None
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)
