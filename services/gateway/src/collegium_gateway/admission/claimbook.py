"""The claims on idempotency keys in their bucket: taking, waiting, taking over, advancing.

What a standing claim means is decided in idempotency.py. One rule: what was not written by compare-and-set was not
decided; a read may be stale, so every path ends in a write or in a claim that no longer changes hands.
"""

from __future__ import annotations

import asyncio
import secrets

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError, BusError, QueueFullError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import task_id_from_key
from collegium_contracts.state import IdempotencyClaim
from collegium_runtime.platform import Platform

from collegium_gateway.admission.idempotency import Patience, claim_name, in_progress, judge
from collegium_gateway.errors import ApiError, from_bus

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.01
MAX_PAUSE_SECONDS = 0.25
ADVANCE_SECONDS = 5.0


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """How a request with a key begins: ``held`` where it is the one that does the work, under ``revision``."""

    name: str
    claim: IdempotencyClaim
    revision: int
    held: bool
    taken_over: bool = False


class ClaimBook:
    """The claims of all tenants."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._bucket = Bucket(platform.connection, s.KV_IDEMPOTENCY)

    async def begin(
        self, tenant: str, key: str, fingerprint: bytes, patience: Patience, *, trace_id: str = ""
    ) -> Begun:
        """Takes the claim of a key or attaches to it; waits while it can do neither.

        Raises ApiError ``idempotency_conflict``, ``idempotency_in_progress`` after the wait, ``idempotency_full`` and
        ``broker_unavailable``.
        """
        loop = asyncio.get_running_loop()
        name = claim_name(tenant, key)
        gives_up = loop.time() + patience.wait_seconds
        pause = FIRST_PAUSE_SECONDS
        standing: IdempotencyClaim | None = None
        # Most keys are new, so the claim is made first and read only where that is refused.
        revision, seen_since = 0, loop.time()
        while True:
            now_ms = self._platform.now_ms()
            unchanged = loop.time() - seen_since
            verdict = judge(standing, fingerprint, patience, now_ms=now_ms, unchanged_seconds=unchanged)
            if verdict == "attach":
                assert standing is not None, "nothing can be attached to nothing"
                return Begun(name=name, claim=standing, revision=revision, held=False)
            if verdict != "wait":
                over = standing if verdict == "take_over" else None
                claim = self._claim(tenant, key, fingerprint, trace_id, now_ms, over)
                if (taken := await self._put(name, claim, revision)) is not None:
                    return Begun(name=name, claim=claim, revision=taken, held=True, taken_over=over is not None)
            if loop.time() >= gives_up:
                raise in_progress()
            if revision:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, MAX_PAUSE_SECONDS)
            standing, found = await self._read(name)
            if found != revision:
                revision, seen_since = found, loop.time()

    def _claim(
        self, tenant: str, key: str, fingerprint: bytes, trace_id: str, now_ms: int, over: IdempotencyClaim | None
    ) -> IdempotencyClaim:
        """Makes the claim of this request; one that is taken over keeps its task and its time of creation."""
        return IdempotencyClaim(
            fingerprint=fingerprint,
            state="claimed",
            holder=f"{self._platform.connection.instance}.{secrets.token_hex(6)}",
            created_at_ms=now_ms if over is None else over.created_at_ms,
            changed_at_ms=now_ms,
            task_id=task_id_from_key(tenant, key, now_ms) if over is None else over.task_id,
            trace_id=trace_id if over is None else over.trace_id,
        )

    async def advance(
        self, begun: Begun, state: str, *, reply: Envelope | None = None, budget_seconds: float = ADVANCE_SECONDS
    ) -> Begun | None:
        """Writes a held claim's next state and returns how it stands; none where it changed hands, or cannot be told.

        None of both is an error of the request: what was done stands, and the key's next request finds out.
        """
        claim = msgspec.structs.replace(begun.claim, state=state, changed_at_ms=self._platform.now_ms(), reply=reply)
        try:
            revision = await self._put(begun.name, claim, begun.revision, budget_seconds)
        except ApiError as error:
            log.warning("claim not advanced", claim=begun.name, state=state, error=error.message)
            return None
        if revision is None:
            log.info("claim was taken over", claim=begun.name, state=state)
            return None
        return msgspec.structs.replace(begun, claim=claim, revision=revision)

    async def _put(self, name: str, claim: IdempotencyClaim, revision: int, budget_seconds: float = 15.0) -> int | None:
        """Writes a claim over ``revision`` (0: none may stand); returns its own, or none where somebody else did."""
        value = codec.encode(claim)
        try:
            return await self._bucket.put(name, value, expected_revision=revision, budget_seconds=budget_seconds)
        except AlreadyStandsError:
            # An own write whose acknowledgement was lost refuses the next one; the holder's name tells.
            standing, found = await self._read(name)
            if standing is None or standing.holder != claim.holder:
                return None
            return found if standing == claim else await self._put(name, claim, found, budget_seconds)
        except QueueFullError as error:
            raise ApiError(
                "idempotency_full",
                "as many idempotency keys are kept as may be; try again later, or send the request without one",
                retry_after_seconds=60,
            ) from error
        except BusError as error:
            raise from_bus(error, "the idempotency key") from error

    async def _read(self, name: str) -> tuple[IdempotencyClaim | None, int]:
        try:
            entry = await self._bucket.get(name)
            value = codec.state.decode(entry.value) if entry is not None else None
        except BusError as error:
            raise from_bus(error, "the idempotency key") from error
        except ContractError as error:
            log.error("claim unreadable", claim=name, error=str(error))
            raise ApiError("internal_error", "what stands for this Idempotency-Key cannot be read") from error
        if not isinstance(value, IdempotencyClaim):
            return None, entry.revision if entry is not None else 0
        return value, entry.revision if entry is not None else 0
