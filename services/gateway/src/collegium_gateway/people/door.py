"""Approvals over HTTP: what waits for people, who works on it, and what they say.

Somebody of the operator sees what its queues ask, somebody of a tenant what that tenant's own queues ask about its
tasks; content is shown to those alone who may answer, and every look at it is recorded. One rule: what lies outside the
asker's reach is answered as if it did not exist.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec
from collegium_contracts.audit import printable
from collegium_contracts.ids import TASK_ID, TENANT_ID
from collegium_contracts.people import InputSource, Question
from collegium_runtime.audit import Audit
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal, no_tenant_id
from collegium_gateway.people.answering import MAX_BODY_BYTES, Answering, InputRequest, decode_input
from collegium_gateway.people.book import QuestionBook, QuestionRow, Reachable
from collegium_gateway.people.views import content_view, row_view

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200
DEFAULT_CLAIM_SECONDS: Final = 900
STATES: Final = ("open", "answered", "expired", "closed")
NAMES_MAX: Final = 64
COMMENT_CHARS: Final = 200


class NextRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which question to take next: of these queues (none: any), that has one of these labels (none: any)."""

    queues: list[str] | None = None
    labels: list[str] | None = None


class MoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Into which queue a question is put, and why."""

    queue: str
    comment: str = ""


_decode_move = msgspec.json.Decoder(MoveRequest)
_decode_next = msgspec.json.Decoder(NextRequest)


class ApprovalDoor:
    """The routes about questions to people."""

    def __init__(
        self, platform: Platform, directory: Directory, book: QuestionBook, answering: Answering, audit: Audit
    ) -> None:
        self._platform = platform
        self._directory = directory
        self._book = book
        self._answering = answering
        self._audit = audit

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/approvals", self._list, methods=["GET"]),
            Route("/v1/admin/approvals/claim", self._claim_next, methods=["POST"]),
            Route("/v1/admin/approvals/{id}", self._get, methods=["GET"]),
            Route("/v1/admin/approvals/{id}/claim", self._claim, methods=["POST"]),
            Route("/v1/admin/approvals/{id}/return", self._return, methods=["POST"]),
            Route("/v1/admin/approvals/{id}/move", self._move, methods=["POST"]),
            Route("/v1/admin/approvals/{id}/answer", self._answer, methods=["POST"]),
        ]

    def _principal(self, request: Request) -> Principal:
        return self._directory.keys.authenticate(request.headers.get("authorization"))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        principal = self._principal(request)
        tenant = query.get("tenant") or None
        reach = _reach(principal, queues=_names(query.get("queue")), labels=_names(query.get("label")))
        if tenant is not None and not principal.reviews_all:
            tenant = principal.within(tenant)
        elif tenant is not None and TENANT_ID.match(tenant) is None:
            raise no_tenant_id("tenant")
        if tenant is not None:
            reach = msgspec.structs.replace(reach, tenant=tenant)
        state = query.get("state") or None
        if state not in (None, *STATES):
            raise ApiError("invalid_value", f"state must be one of {', '.join(STATES)}", param="state")
        limit = _limit(query.get("limit"))
        after = _position(query.get("cursor"))
        rows = await self._book.page(reach, state=state, after=after, limit=limit + 1)
        more = _cursor(rows[limit - 1]) if len(rows) > limit else None
        return json_reply({"data": [row_view(row) for row in rows[:limit]], "next_cursor": more})

    async def _get(self, request: Request) -> Response:
        principal = self._principal(request)
        row = await self._row(principal, request.path_params["id"])
        shown = row_view(row)
        if principal.may("approvals.write"):
            found = await self._answering.standing(row.tenant, row.task_id)
            if found is not None:
                await self._platform.keyring.learn(row.tenant)
                shown |= content_view(found, self._platform.keyring)
                self._tell(principal, row, "approvals.read")
        return json_reply(shown)

    async def _claim_next(self, request: Request) -> Response:
        principal = self._principal(request)
        body = await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES)
        asked = parse(_decode_next, body) if body else NextRequest()
        reach = _reach(
            principal,
            queues=tuple(asked.queues) if asked.queues is not None else None,
            labels=tuple(asked.labels) if asked.labels is not None else None,
        )
        row = await self._book.take_next(reach, principal.key_id, self._lease_ms(None))
        if row is None:
            raise ApiError("not_found", "no question is open that nobody works on")
        if (own := self._lease_ms(row.queue)) != self._lease_ms(None):
            row = await self._book.claim(row.task_id, row.question, principal.key_id, own) or row
        return json_reply(row_view(row))

    async def _claim(self, request: Request) -> Response:
        principal = self._principal(request)
        row = await self._row(principal, request.path_params["id"])
        lease_ms = self._lease_ms(row.queue)
        claimed = await self._book.claim(row.task_id, row.question, principal.key_id, lease_ms)
        if claimed is None:
            raise _not_yours(await self._row(principal, request.path_params["id"]))
        return json_reply(row_view(claimed))

    async def _return(self, request: Request) -> Response:
        principal = self._principal(request)
        row = await self._row(principal, request.path_params["id"])
        # Who administrates all tenants takes a claim from whoever forgot it.
        by = None if principal.reaches_all else principal.key_id
        returned = await self._book.give_back(row.task_id, row.question, by)
        if returned is None:
            raise _not_yours(row)
        return json_reply(row_view(returned))

    async def _move(self, request: Request) -> Response:
        principal = self._principal(request)
        asked = parse(_decode_move, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        row = await self._row(principal, request.path_params["id"])
        queues = self._platform.settings.people.queues
        there = queues.get(asked.queue)
        if there is None or (there.tenants and row.tenant not in there.tenants) or asked.queue == row.queue:
            raise ApiError("unknown_queue", f"{asked.queue!r} is no other queue of {row.tenant}'s", param="queue")
        here = queues.get(row.queue)
        own = [label for label in row.labels if here is None or label not in here.labels]
        by = None if principal.reaches_all else principal.key_id
        labels = list(dict.fromkeys((*there.labels, *own)))
        moved = await self._book.move(row, by, asked.queue, there.staff, labels)
        if moved is None:
            raise _not_yours(await self._row(principal, request.path_params["id"]))
        # Said in the chain of the tenant whose task it is; the act itself stands in that of whoever did it.
        details = {"to": asked.queue, "comment": printable(asked.comment, COMMENT_CHARS)}
        self._tell(principal, row, "question.moved", **details)
        return json_reply(row_view(moved))

    async def _answer(self, request: Request) -> Response:
        principal = self._principal(request)
        asked = parse(decode_input, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        row = await self._row(principal, request.path_params["id"])
        if row.claimed_by not in (None, principal.key_id):
            raise _not_yours(row)
        named = InputRequest(decision=asked.decision, text=asked.text, question=row.question, comment=asked.comment)
        source: InputSource = "tenant" if row.whom == "tenant" else "operator"

        def may(question: Question) -> bool:
            return question.id == row.question

        with self._platform.tracing.root(
            "POST /v1/admin/approvals/{id}/answer",
            "server",
            incoming_traceparent=request.headers.get("traceparent"),
            attributes=None,
        ) as hop:
            given = await self._answering.answer(
                principal, row.tenant, row.task_id, named, may=may, source=source, traceparent=hop.traceparent
            )
        shown = row_view(row) | {"state": "answered", "decision": given.decision, "answered_by": given.by or None}
        told = shown | {"claimed_by": None, "claimed_until": None}
        return json_reply(told, headers={"traceparent": hop.traceparent})

    async def _row(self, principal: Principal, name: str) -> QuestionRow:
        task_id, _, question = name.partition(".")
        row = await self._book.get(task_id, question) if question else None
        if row is None or not _reach(principal).covers(row):
            raise ApiError("not_found", f"there is no question {name[:80]!r}", param="id")
        return row

    def _lease_ms(self, queue: str | None) -> int:
        known = self._platform.settings.people.queues.get(queue or "")
        return (known.claim_seconds if known is not None else DEFAULT_CLAIM_SECONDS) * 1000

    def _tell(self, principal: Principal, row: QuestionRow, action: str, **more: str) -> None:
        details = {"question": row.question, "queue": row.queue, "actor_tenant": principal.tenant, **more}
        self._audit.record(
            self._audit.entry(row.tenant, principal.key_id, action, "done", object=row.task_id, details=details)
        )


def _reach(
    principal: Principal, *, queues: tuple[str, ...] | None = None, labels: tuple[str, ...] | None = None
) -> Reachable:
    """Returns which questions somebody may see: the operator's staff its queues', a tenant's that tenant's own."""
    if principal.reviews_all:
        return Reachable(None, ("operator",), queues, labels)
    return Reachable(principal.tenant, ("tenant",), queues, labels)


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(text.split(",")[:NAMES_MAX]) if text else None


def _limit(text: str | None) -> int:
    if not text:
        return PAGE_DEFAULT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PAGE_MAX):
        raise ApiError("invalid_value", f"limit must be between 1 and {PAGE_MAX}", param="limit")
    return int(text)


def _cursor(row: QuestionRow) -> str:
    plain = f"{row.created_at_ms}.{row.task_id}.{row.question}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _position(text: str | None) -> tuple[int, str, str]:
    if not text:
        return (-1, "", "")
    try:
        created, task_id, question = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(".")
        position = (int(created), task_id, question)
    except (binascii.Error, ValueError):
        position = (-1, "", "")
    if not 0 <= position[0] < 2**63 or TASK_ID.match(position[1]) is None or "\0" in position[2]:
        raise ApiError("invalid_value", "cursor is not one that a list returned", param="cursor")
    return position


def _not_yours(row: QuestionRow) -> ApiError:
    name = f"{row.task_id}.{row.question}"
    if row.state != "open":
        return ApiError("already_answered", f"question {name} is {row.state}", param="id")
    if row.claimed_by is not None:
        return ApiError("claimed_by_another", f"question {name} is being answered by {row.claimed_by}", param="id")
    return ApiError("claimed_by_another", f"question {name} is not in your hands", param="id")
