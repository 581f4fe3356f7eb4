"""Administrative acts on their way through: recorded before they are done, and again when they have ended.

A layer over the routes. An act of somebody who may administer is recorded as ``begun`` before anything is done; without
that record it is refused. How it ended is recorded before the answer is sent, in the actor's chain, and in that of the
tenant it was done to. What is refused for want of rights is told once and then counted. One rule: no route needs to
know of this, and none can be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from collegium_contracts.audit import AuditEntry
from collegium_runtime.audit import Audit, AuditUnavailableError

from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Receive, Scope, Send
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.keywatch import KeyWatch, address_of
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating.audit_acts import Act, act_of, concerned, outcome_of, reply_of, told

log = structlog.get_logger(__name__)

AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES: Final = 1_000_000
PENDING: Final = (b"x-collegium-audit", b"pending")


class _Asked(NamedTuple):
    """One act: who asks for what, and what is told of it."""

    principal: Principal
    act: Act
    details: dict[str, str]
    trace: str


class AuditedActs:
    """The routes, with every act recorded."""

    def __init__(self, audit: Audit, watch: KeyWatch, directory: Directory, routes: AsgiApp) -> None:
        self._audit = audit
        self._watch = watch
        self._directory = directory
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        act = act_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if act is None:
            await self._routes(scope, receive, send)
            return
        try:
            principal = self._directory.keys.authenticate(asgi.header(scope, b"authorization"))
        except ApiError as error:
            # The watch over keys has noted it.
            await asgi.send_error(send, error)
            return
        details = {"method": scope["method"], "path": scope["path"], "address": address_of(scope)}
        try:
            body = await asgi.read_body(scope, receive, MAX_BODY_BYTES)
        except ApiError as error:
            self._watch.act_refused(principal, act, error.code, details)
            await asgi.send_error(send, error)
            return
        trace = (asgi.header(scope, b"traceparent") or "")[3:35]
        asked = _Asked(principal, act, {**details, **told(body)}, trace)
        await self._act(asked, scope, _once(body, receive), send)

    async def _act(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> None:
        begun: AuditEntry | None = None
        may_act = "admin" in asked.principal.scopes or asked.principal.role != "member"
        if may_act or not scope["path"].startswith("/v1/admin/"):
            begun = self._entry(asked, asked.principal.tenant, "begun")
            try:
                await self._audit.record_now(begun)
            except AuditUnavailableError as error:
                log.error("an act was refused, for it cannot be recorded", action=asked.act.action, error=str(error))
                message = "the audit trail cannot be written now, so nothing was changed; try again"
                await asgi.send_error(send, ApiError("audit_unavailable", message, retry_after_seconds=5))
                return
        answer = _Answer()
        try:
            await self._routes(scope, receive, answer.take)
        except asyncio.CancelledError:
            self._audit.record(self._entry(asked, asked.principal.tenant, "failed", begun, "interrupted"))
            raise
        except Exception:
            await self._ended(asked, begun, answer)
            await answer.send(send)
            raise
        pending = await self._ended(asked, begun, answer)
        await answer.send(send, [PENDING] if pending else [])

    async def _ended(self, asked: _Asked, begun: AuditEntry | None, answer: _Answer) -> bool:
        """Records how an act ended; true where that stands only later."""
        outcome = outcome_of(answer.status)
        reply = reply_of(answer.body)
        reason = reply.error.code
        if begun is None and outcome == "refused":
            self._watch.act_refused(asked.principal, asked.act, reason, asked.details)
            return False
        entries = [self._entry(asked, asked.principal.tenant, outcome, begun, reason)]
        other = concerned(asked.act, reply)
        if outcome == "done" and other not in ("", asked.principal.tenant):
            entries.append(self._entry(asked, other, outcome, begun, reason))
        if outcome == "done" and not asked.act.object and reply.id:
            entries = [msgspec.structs.replace(entry, object=reply.id) for entry in entries]
        pending = False
        for entry in entries:
            try:
                await self._audit.record_now(entry)
            except AuditUnavailableError as error:
                log.error("an act's end is not recorded yet", action=entry.action, error=str(error))
                self._audit.record(entry)
                pending = True
        return pending

    def _entry(
        self, asked: _Asked, tenant: str, outcome: Any, begun: AuditEntry | None = None, reason: str = ""
    ) -> AuditEntry:
        details = {**asked.details, "actor_tenant": asked.principal.tenant}
        if begun is not None:
            details["begun"] = begun.id
        return self._audit.entry(
            tenant,
            asked.principal.key_id,
            asked.act.action,
            outcome,
            object=asked.act.object,
            reason=reason or asked.details.get("reason", ""),
            details=details,
            trace=asked.trace,
        )


class _Answer:
    """What the routes sent, kept until its record stands."""

    def __init__(self) -> None:
        self.status = 500
        self._messages: list[MutableMapping[str, Any]] = []

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(message.get("body", b"") for message in self._messages[1:])

    async def take(self, message: MutableMapping[str, Any]) -> None:
        """Keeps one message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self._messages.append(message)

    async def send(self, send: Send, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Sends all of it on."""
        for message in self._messages:
            if headers and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)


def _once(body: bytes, receive: Receive) -> Receive:
    """Returns a ``receive`` that gives a body that was read already."""
    unread = [body]

    async def receiving() -> MutableMapping[str, Any]:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return receiving
