"""The breakers of all models, shared by the workers through the bucket ``breakers``.

What this worker sees counts for itself at once and is written for the others in the background, by compare-and-set,
many failures at a time. One rule: a call that goes well on a closed breaker costs nothing here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog
from collegium_bus.connection import Connection
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import Breaker

from collegium_worker_pool.endpoints import breaker as rules

log = structlog.get_logger(__name__)

WRITE_PAUSE_SECONDS = 0.1
MAX_WRITES = 10
ASK_AGAIN_MS = 1_000

Change = Callable[[Breaker], Breaker]


class Breakers:
    """Admits calls, and learns how they ended."""

    def __init__(self, connection: Connection, now_ms: Callable[[], int]) -> None:
        self._bucket = Bucket(connection, s.KV_BREAKERS)
        self._now_ms = now_ms
        self._known: dict[str, Breaker] = {}
        self._changes: dict[str, list[Change]] = {}
        self._dirty = asyncio.Event()
        self._watch = self._bucket.watch(self._learn)
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads what stands, then follows and writes."""
        await self._watch.start()
        self._writer = asyncio.create_task(self._write(), name="breakers")

    async def stop(self) -> None:
        """Stops; what was not written yet is not worth a wait."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._watch.stop()

    async def admit(self, model: str, probe_seconds: float) -> int:
        """Returns 0 where a call may be made, else the time (Unix ms) at which to ask again, a second from now at most:
        a probe may end well before its time.

        Claims the probe of a half-open breaker for ``probe_seconds``.
        """
        known = self._known.get(model)
        if known is None or not known.open_until_ms:
            return 0
        now = self._now_ms()
        admission = rules.admission(known, now)
        if admission == "probe" and await self._claim_probe(model, int(probe_seconds * 1000)):
            return 0
        return 0 if admission == "pass" else min(now + ASK_AGAIN_MS, max(now, rules.next_admission_ms(known)))

    def failed_lately(self, model: str, within_ms: int) -> bool:
        """Tells whether a breaker is open, or a failure was counted within so long."""
        known = self._known.get(model)
        if known is None:
            return False
        return bool(known.open_until_ms) or self._now_ms() - max(known.failures_ms, default=0) < within_ms

    def health(self, model: str) -> float:
        """Returns how well a model answers, from 0 to 1."""
        known = self._known.get(model)
        return rules.health(known, self._now_ms()) if known is not None else 1.0

    def ended(self, model: str, error_code: str) -> None:
        """Learns how a call ended; an empty code is a success."""
        if error_code in rules.COUNTED:
            now = self._now_ms()
            self._change(model, lambda breaker: rules.failed(breaker, now))
        elif not error_code and (known := self._known.get(model)) is not None and known.open_until_ms:
            self._change(model, rules.succeeded)

    def _change(self, model: str, change: Change) -> None:
        self._known[model] = change(self._known.get(model) or Breaker(model=model))
        self._changes.setdefault(model, []).append(change)
        self._dirty.set()

    async def _claim_probe(self, model: str, probe_ms: int) -> bool:
        key = s.state_key(model)
        try:
            entry = await self._bucket.get(key)
            standing = _read(entry)
            now = self._now_ms()
            if standing is None or rules.admission(standing, now) != "probe":
                if standing is not None:
                    self._known[model] = standing
                return standing is None or rules.admission(standing, now) == "pass"
            taken = rules.probing(standing, now, probe_ms)
            await self._bucket.put(
                key, codec.encode(taken), expected_revision=entry.revision if entry is not None else 0
            )
        except BusError as error:
            log.info("probe not claimed", model=model, error=str(error))
            return False
        self._known[model] = taken
        return True

    async def _write(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            for model in list(self._changes):
                await self._write_model(model)
            await asyncio.sleep(WRITE_PAUSE_SECONDS)

    async def _write_model(self, model: str) -> None:
        changes = self._changes.pop(model, [])
        key = s.state_key(model)
        for _ in range(MAX_WRITES):
            try:
                entry = await self._bucket.get(key)
                standing = _read(entry) or Breaker(model=model)
                changed = standing
                for change in changes:
                    changed = change(changed)
                if changed == standing:
                    return
                await self._bucket.put(
                    key, codec.encode(changed), expected_revision=entry.revision if entry is not None else 0
                )
            except AlreadyStandsError:
                await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - jitter
            except BusError as error:
                log.info("breaker not written", model=model, error=str(error))
                return
            else:
                if bool(changed.open_until_ms) != bool(standing.open_until_ms):
                    log.warning("circuit breaker", model=model, state="open" if changed.open_until_ms else "closed")
                return

    def _learn(self, entry: Entry) -> None:
        breaker = _read(entry)
        if breaker is not None and breaker.model not in self._changes:
            self._known[breaker.model] = breaker


def _read(entry: Entry | None) -> Breaker | None:
    if entry is None:
        return None
    try:
        value = codec.state.decode(entry.value)
    except ContractError as error:
        log.error("breaker unreadable", key=entry.key, error=str(error))
        return None
    return value if isinstance(value, Breaker) else None
