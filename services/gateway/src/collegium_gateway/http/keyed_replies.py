"""Replies under an idempotency key: whatever a POST that is not a task answered is kept for its day, sealed.

The first request claims the key, does its work while it renews the claim, and stores its reply before it answers. What
is kept: every success, and the refusals 404 and 409, which say what the request met. What is not: other refusals (the
request did nothing, and may be sent again when it is right) and errors from 500 on (it may be tried again). A holder
that died is taken over after FOR_REPLIES.stale_seconds, and the work is done again. One rule: a reply goes to its
client after it is kept, so that whoever got an answer gets the same one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from collegium_contracts.envelope import Keyring, UnknownKeyError
from collegium_contracts.errors import kind_of

from collegium_gateway.admission.claimbook import Begun, ClaimBook
from collegium_gateway.admission.idempotency import FOR_REPLIES, PARAM, RENEW_SECONDS, checked_key, fingerprint
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.keyed import Asking

log = structlog.get_logger(__name__)

# A POST's reply is an object or a page of them; a longer one is answered and not kept.
MAX_REPLY_BYTES = 1_000_000
_KEPT_REFUSALS = (404, 409)


class Reply(msgspec.Struct, frozen=True):
    """One reply: its HTTP status (or the one of its error), the headers worth repeating, and its body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Kept(msgspec.Struct, frozen=True):
    """What is sealed: the reply, and the scopes of the key that got it."""

    reply: Reply
    scopes: list[str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


def is_kept(status: int) -> bool:
    """Whether a reply with this status is kept for its key."""
    return 200 <= status < 300 or status in _KEPT_REFUSALS


class KeyedReplies:
    """Answers keyed requests."""

    def __init__(self, book: ClaimBook, keyring: Keyring) -> None:
        self._book = book
        self._keyring = keyring

    async def answer(
        self, principal: Principal, asking: Asking, work: Callable[[], Awaitable[Reply]]
    ) -> tuple[Reply, bool]:
        """Returns the reply of a key's first request, and whether it was kept from before.

        ``work`` is run by the first request alone. Raises ApiError, and whatever ``work`` raises.
        """
        key = checked_key(asking.key)
        asked = fingerprint(key, asking.method, asking.path, asking.body)
        # Before anything is done: a reply that cannot be sealed could not be kept.
        if not self._keyring.holds(principal.tenant):
            await self._keyring.learn(principal.tenant)
            self._keyring.seal(principal.tenant, b"")
        begun = await self._book.begin(principal.tenant, key, asked, FOR_REPLIES)
        if not begun.held:
            return self._open(begun, principal), True
        renewal = _Renewal(self._book, begun)
        try:
            reply = await work()
        except Exception:
            await self._book.advance(await renewal.end(), "released")
            raise
        finally:
            # A canceled request leaves its claim to go stale: nobody knows what it had done.
            held = await renewal.end()
        await self._keep(held, principal, reply)
        return reply, False

    async def _keep(self, held: Begun, principal: Principal, reply: Reply) -> None:
        if not is_kept(reply.status):
            await self._book.advance(held, "released")
            return
        kept = None
        if len(reply.body) <= MAX_REPLY_BYTES:
            plain = _encode(_Kept(reply, sorted(principal.scopes)))
            kept = self._keyring.seal(principal.tenant, plain, held.name)
        await self._book.advance(held, "answered", reply=kept)

    def _open(self, begun: Begun, principal: Principal) -> Reply:
        if begun.claim.reply is None:
            raise ApiError(
                "idempotency_conflict",
                "the request with this Idempotency-Key was answered, and its answer is not kept; use a new key",
                param=PARAM,
            )
        try:
            kept = _decode(self._keyring.open(principal.tenant, begun.claim.reply, begun.name))
        except (UnknownKeyError, msgspec.DecodeError) as error:
            log.error("kept reply unreadable", claim=begun.name, error=str(error))
            raise ApiError("internal_error", "the kept answer cannot be opened; the gateway's log says why") from error
        if missing := sorted(set(kept.scopes) - principal.scopes):
            raise ApiError(
                "insufficient_scope",
                f"key {principal.key_id} lacks {', '.join(missing)}, which the key that got this answer has",
            )
        return kept.reply


class _Renewal:
    """Renews a claim while its work runs, so that no other request takes it for dead."""

    def __init__(self, book: ClaimBook, begun: Begun) -> None:
        self._book = book
        self._begun = begun
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run(), name="renew-claim")

    async def end(self) -> Begun:
        """Stops and returns the claim as it stands."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return self._begun

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            renewed = await self._book.advance(self._begun, "claimed", budget_seconds=RENEW_SECONDS)
            if renewed is not None:
                self._begun = renewed


def error_reply(error: ApiError) -> Reply:
    """Returns an error as a reply that can be kept where there is no HTTP."""
    body = msgspec.msgpack.encode([error.code, error.message, error.param, error.task_id])
    return Reply(error.kind.http_status, [], body)


def error_of(reply: Reply) -> ApiError:
    """Returns the error that :func:`error_reply` wrote."""
    code, message, param, task_id = msgspec.msgpack.decode(reply.body, type=tuple[str, str, str | None, str])
    assert kind_of(code).http_status == reply.status, "a kept error keeps its status"
    return ApiError(code, message, param=param, task_id=task_id)
