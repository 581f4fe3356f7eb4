"""Erasing tenants: each service follows the bucket ``erasures`` and erases its own part.

The data keys go first, because without them nothing that is left can be read, wherever it lies; then the parts, in any
order. What was under way when a tenant was erased may still leave a row, which nobody can read: a part is swept again
while the erasure is young. One rule: a part is reported done after its rows are gone, and may be erased any number of
times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import ERASURE_PARTS, Erasure, ErasurePart

from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)

# Longer than any task may run: what was under way has ended by then.
SWEEP_FOR_MS: Final = 90 * 60_000
SWEEP_EVERY_MS: Final = 10 * 60_000
AGAIN_SECONDS: Final = 2.0
REPORT_TRIES: Final = 50

Erase = Callable[[str], Awaitable[int]]


def is_due(erasure: Erasure, part: ErasurePart, now_ms: int) -> bool:
    """Whether a part is to be erased now: the keys at once, the others after them, and again while it is young."""
    if part != "data_keys" and "data_keys" not in erasure.done:
        return False
    return part not in erasure.done or (part != "data_keys" and now_ms - erasure.requested_at_ms < SWEEP_FOR_MS)


def left_of(erasure: Erasure) -> list[ErasurePart]:
    """The parts that are still to be erased."""
    return [part for part in ERASURE_PARTS if part not in erasure.done]


class Erasing:
    """Erases this service's parts of every tenant that is to be erased.

    ``erase`` removes a part and returns how many rows and messages went; ``on_known`` is called for every erasure.
    """

    def __init__(
        self, platform: Platform, parts: dict[ErasurePart, Erase], on_known: Callable[[str], None] | None = None
    ) -> None:
        self._now_ms = platform.now_ms
        self._bucket = Bucket(platform.connection, s.KV_ERASURES)
        self._watch = self._bucket.watch(self._learn)
        self._parts = parts
        self._on_known = on_known
        self._swept_ms: dict[tuple[str, ErasurePart], int] = {}
        self._due: dict[tuple[str, ErasurePart], None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads what stands, then erases in the background."""
        await self._watch.start()
        self._task = asyncio.create_task(self._run(), name="erasing")

    async def stop(self) -> None:
        """Stops; what is not erased yet is at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._watch.stop()

    async def request(self, tenant: str, by: str) -> Erasure:
        """Begins a tenant's erasure, or returns the one that stands. It cannot be taken back."""
        wanted = Erasure(tenant=tenant, requested_at_ms=self._now_ms(), requested_by=by)
        try:
            await self._bucket.put(tenant, codec.encode(wanted), expected_revision=0)
        except AlreadyStandsError:
            standing = await self.of(tenant)
            assert standing is not None, "nobody deletes from this bucket"
            return standing
        return wanted

    async def of(self, tenant: str) -> Erasure | None:
        """Returns a tenant's erasure as it stands, or none."""
        entry = await self._bucket.get(tenant)
        return _read(entry) if entry is not None else None

    def _learn(self, entry: Entry) -> None:
        erasure = _read(entry)
        if erasure is None:
            return
        if self._on_known is not None:
            self._on_known(erasure.tenant)
        now = self._now_ms()
        for part in self._parts:
            swept_ms = self._swept_ms.get((erasure.tenant, part), 0)
            if is_due(erasure, part, now) and now - swept_ms >= SWEEP_EVERY_MS:
                self._due[erasure.tenant, part] = None
                self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for tenant, part in list(self._due):
                try:
                    removed = await self._parts[part](tenant)
                    await self._report(tenant, part, removed)
                except Exception as error:  # whatever failed, it is erased in the end
                    log.error("part of a tenant not erased yet", tenant=tenant, part=part, error=str(error))
                    self._wake.set()
                else:
                    del self._due[tenant, part]
                    self._swept_ms[tenant, part] = self._now_ms()
            if self._wake.is_set():
                await asyncio.sleep(AGAIN_SECONDS)

    async def _report(self, tenant: str, part: ErasurePart, removed: int) -> None:
        for _ in range(REPORT_TRIES):
            entry = await self._bucket.get(tenant)
            standing = _read(entry) if entry is not None else None
            if entry is None or standing is None or (part in standing.done and not removed):
                return
            changed = msgspec.structs.replace(
                standing,
                done={part: self._now_ms(), **standing.done},
                removed={**standing.removed, part: standing.removed.get(part, 0) + removed},
            )
            try:
                await self._bucket.put(tenant, codec.encode(changed), expected_revision=entry.revision)
            except AlreadyStandsError:
                continue
            log.info("part of a tenant erased", tenant=tenant, part=part, removed=removed)
            return
        raise RuntimeError(f"the erasure of tenant {tenant} was changed by others {REPORT_TRIES} times in a row")


def _read(entry: Entry) -> Erasure | None:
    try:
        value = codec.state.decode(entry.value)
    except ContractError as error:
        log.error("erasure unreadable", tenant=entry.key, error=str(error))
        return None
    return value if isinstance(value, Erasure) else None
