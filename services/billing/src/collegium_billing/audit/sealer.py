"""The sealer: reads AUDIT in the stream's order and appends its entries to the tenants' chains.

One billing replica at a time, by a lease; a later one takes an epoch in the database, after which an earlier one's
transaction is refused. What a batch adds, the new ends of its chains and the place in the stream are one transaction,
so a takeover at any moment goes on where it stands. AUDIT is then emptied up to there. One rule: an entry that cannot
be sealed as it is leaves a record that says so, and never holds up the ones behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_bus.leases import LeaseHolder
from collegium_bus.ordered import OrderedReader
from collegium_contracts import audit as a
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.audit import AuditEntry
from collegium_contracts.audit_chain import genesis
from collegium_contracts.errors import ContractError
from collegium_runtime.audit_keys import AuditKeys, AuditSigner
from collegium_runtime.platform import Platform
from collegium_store import is_poison
from collegium_telemetry import names

from collegium_billing.audit.sealing import Arrived, Head, extend, gaps, own_entry, place
from collegium_billing.audit.store import AuditStore, Claim, Cursor, End
from collegium_billing.audit.upkeep import Upkeep
from collegium_billing.errors import FencedError

log = structlog.get_logger(__name__)

LEASE: Final = "audit-sealer"
BATCH: Final = 500
HELD_MAX: Final = 5_000  # beyond it reading stops until these are sealed
TICK_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 30.0
LINGER_SECONDS: Final = 0.05


class _Stream(NamedTuple):
    """What AUDIT says of itself: when it was made (its name among streams of this name), and what it holds."""

    created: str
    messages: int
    last_sequence: int


class Sealer:
    """Seals while it holds the lease; ``faults`` counts what it found that should not be."""

    def __init__(self, platform: Platform, store: AuditStore, signer: AuditSigner, keys: AuditKeys) -> None:
        self._platform = platform
        self._store = store
        self._signer = signer
        self._keys = keys
        self._upkeep = Upkeep(platform, store, signer, keys, self._make, self._link)
        self._held: deque[Delivery] = deque()
        self._overfull = False
        self._wake = asyncio.Event()
        self._reader: OrderedReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._ends: dict[str, Head] = {}
        self.faults = 0
        self._leases = LeaseHolder(
            Bucket(platform.connection, s.KV_HOLDERS),
            platform.instance,
            [LEASE],
            on_gained=self._gained,
            on_lost=self._lost,
        )
        platform.metrics.watch_gauge(names.METRIC_AUDIT_UNSEALED, lambda: len(self._held), "Audit entries in hand")
        platform.metrics.watch_gauge(names.METRIC_AUDIT_FAULTS, lambda: self.faults, "Faults found in the audit trail")

    async def start(self) -> None:
        """Seals from now on, where nobody else does."""
        await self._leases.start()

    async def stop(self) -> None:
        """Lets somebody else seal."""
        await self._leases.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _gained(self, _name: str, _epoch: int) -> None:
        self._task = asyncio.create_task(self._keep_sealing(self._task), name="audit-sealer")

    def _lost(self, _name: str) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _keep_sealing(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        while True:
            try:
                await self._term()
            except FencedError as error:
                log.warning("sealing ended", error=str(error))
            except BusError as error:
                log.warning("sealing waits for the broker", error=str(error))
            except Exception as error:  # sealing must go on, whatever failed
                log.error("sealing failed, trying again", exc_info=error)
            await asyncio.sleep(random.uniform(0.5, 2.0))  # noqa: S311 - jitter

    async def _term(self) -> None:
        """Seals until something fails or the stream is another one."""
        stream = await self._look()
        claim = await self._store.claim()
        self._ends.clear()
        at = claim.sequence if claim.stream == stream.created else 0
        if claim.stream not in ("", stream.created):
            self.faults += 1
            details = {"before": claim.stream, "sealed_through": str(claim.sequence), "now": stream.created}
            await self._seal(claim, stream.created, at, [], [self._make(a.STREAM_REPLACED, details=details)])
        at = await self._note_emptied(claim, stream, at)
        try:
            await self._follow(claim, stream, at)
        finally:
            await self._stop_reading()

    async def _follow(self, claim: Claim, stream: _Stream, at: int) -> None:
        loop = asyncio.get_running_loop()
        looked_at, emptied = loop.time(), at
        self._read_from(at + 1)
        while self._leases.holds(LEASE):
            at = await self._seal_held(claim, stream.created, at)
            if self._overfull and not self._held:
                await self._stop_reading()
                self._read_from(at + 1)
            if at > emptied and not self._held:
                await self._empty(at)
                emptied = at
            await self._upkeep.run(claim.epoch, stream.created)
            if loop.time() - looked_at > LOOK_SECONDS:
                looked_at = loop.time()
                if (now := await self._look()).created != stream.created:
                    return
                at = await self._note_emptied(claim, now, at)
            await self._next()

    async def _next(self) -> None:
        """Waits for more, for at most a tick."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(LINGER_SECONDS)

    def _read_from(self, sequence: int) -> None:
        self._overfull = False
        self._held.clear()
        self._wake.clear()
        connection = self._platform.connection
        self._reader = OrderedReader(
            connection, s.AUDIT, [s.AUDIT_ALL], self._arrive, start_sequence=sequence, label="sealer"
        )
        self._reader.start()

    async def _stop_reading(self) -> None:
        if self._reader is not None:
            await self._reader.stop()
            self._reader = None
        self._held.clear()

    def _arrive(self, delivery: Delivery) -> None:
        if self._overfull or len(self._held) >= HELD_MAX:
            self._overfull = True
            return
        self._held.append(delivery)
        self._wake.set()

    async def _seal_held(self, claim: Claim, stream: str, at: int) -> int:
        while self._held and self._leases.holds(LEASE):
            batch = [self._held[number] for number in range(min(BATCH, len(self._held)))]
            await self._seal(claim, stream, at, batch, [])
            at = batch[-1].sequence
            for _ in batch:
                self._held.popleft()
        if not self._held:
            self._wake.clear()
        return at

    async def _seal(
        self, claim: Claim, stream: str, at: int, batch: Sequence[Delivery], own: Sequence[AuditEntry]
    ) -> None:
        """Seals a batch that follows ``at``; where the database refuses a value of it, one by one."""
        arrived = [Arrived(entry, 0) for entry in own]
        for first, last in gaps(at + 1, [delivery.sequence for delivery in batch]):
            self.faults += 1
            log.error("audit entries were removed before they were sealed", first=first, last=last)
            details = {"first": str(first), "last": str(last)}
            arrived.append(Arrived(self._make(a.GAP, outcome="failed", details=details), 0))
        arrived += [self._read(delivery) for delivery in batch]
        through = batch[-1].sequence if batch else at
        try:
            await self._write(claim, stream, arrived, through)
        except Exception as error:
            if not is_poison(error):
                raise
            log.error("a batch of audit entries cannot be sealed, sealing one by one", exc_info=error)
            for one in arrived:
                await self._seal_single(claim, stream, one, one.sequence or at)

    async def _seal_single(self, claim: Claim, stream: str, one: Arrived, through: int) -> None:
        try:
            await self._write(claim, stream, [one], through)
        except Exception as error:
            if not is_poison(error):
                raise
            self.faults += 1
            details = {"id": one.entry.id, "tenant": one.entry.tenant, "sequence": str(one.sequence)}
            refused = self._make(a.UNREADABLE, outcome="failed", reason=type(error).__name__, details=details)
            await self._write(claim, stream, [Arrived(refused, 0)], through)

    def _read(self, delivery: Delivery) -> Arrived:
        """Returns the entry of a delivery, or one that says that there is none to be read."""
        try:
            entry = codec.journey.decode(delivery.payload)
            if isinstance(entry, AuditEntry) and delivery.subject == s.audit(entry.tenant):
                return Arrived(entry, delivery.sequence)
            reason = "another_message"
        except ContractError as error:
            reason = error.code
        self.faults += 1
        log.error("bytes in the audit stream are no entry", sequence=delivery.sequence, reason=reason)
        details = {
            "subject": delivery.subject,
            "sequence": str(delivery.sequence),
            "bytes": str(len(delivery.payload)),
            "sha256": hashlib.sha256(delivery.payload).hexdigest(),
        }
        made = self._make(a.UNREADABLE, outcome="failed", reason=reason, details=details)
        return Arrived(made, delivery.sequence)

    async def _write(self, claim: Claim, stream: str, arrived: Sequence[Arrived], through: int) -> None:
        """Seals in one transaction."""
        async with self._store.sealing(claim.epoch) as cursor:
            await self._link(cursor, stream, arrived)
            await cursor.move(stream, through)

    async def _link(self, cursor: Cursor, stream: str, arrived: Sequence[Arrived]) -> dict[str, Head]:
        """Appends entries to their chains and returns the chains' new ends."""
        now = self._platform.now_ms()
        standing = await cursor.standing([(one.entry.tenant, one.entry.id) for one in arrived])
        heads, found = await self._heads(cursor, {one.entry.tenant for one in arrived})
        links = extend(heads, [*found, *arrived], standing, stream=stream, now_ms=now)
        ends = [
            place("head", tenant, head, at_ms=now, round_=0, sign=self._signer.sign)
            for tenant, head in sorted(links.heads.items())
        ]
        await cursor.append(links.records, ends)
        # Where the transaction fails after this, the term ends and forgets what it knew.
        self._ends.update(links.heads)
        return links.heads

    async def _heads(self, cursor: Cursor, tenants: set[str]) -> tuple[dict[str, Head], list[Arrived]]:
        """Returns where chains go on, and an entry for each that does not end as the sealer left it."""
        heads: dict[str, Head] = {}
        found: list[Arrived] = []
        for tenant, end in (await cursor.ends(tenants)).items():
            head = _going_on(tenant, end)
            if head is not None:
                heads[tenant] = head
            reason = self._fault(tenant, end, head)
            if reason is not None:
                self.faults += 1
                log.error("an audit chain does not end as it was sealed", tenant=tenant, reason=reason)
                found.append(Arrived(self._make(a.HEAD_MISMATCH, tenant=tenant, outcome="failed", reason=reason), 0))
        return heads, found

    def _fault(self, tenant: str, end: End, head: Head | None) -> str | None:
        known = self._ends.get(tenant)
        if known is not None and (head is None or head.hash != known.hash):
            return f"the chain ended at {known.seq} as {known.hash}"
        if end.signed is None:
            return "records stand without a signed end" if end.last is not None else None
        if fault := self._keys.fault(end.signed):
            return fault
        if end.last is None or (end.last.seq, end.last.hash) != (end.signed.seq, end.signed.hash):
            return f"the signed end is {end.signed.seq}, the last record {end.last.seq if end.last else 0}"
        return None

    def _make(self, action: str, **fields: Any) -> AuditEntry:
        now = self._platform.now_ms()
        return own_entry(ids.audit_id(now, os.urandom(10)), now, action, **fields)

    async def _note_emptied(self, claim: Claim, stream: _Stream, at: int) -> int:
        """Leaves a record where the stream was emptied beyond what is sealed; returns the place to go on from."""
        if stream.messages or stream.last_sequence <= at or self._held:
            return at
        self.faults += 1
        log.error("the audit stream was emptied before it was sealed", first=at + 1, last=stream.last_sequence)
        details = {"first": str(at + 1), "last": str(stream.last_sequence)}
        gap = self._make(a.GAP, outcome="failed", details=details)
        await self._write(claim, stream.created, [Arrived(gap, 0)], stream.last_sequence)
        return stream.last_sequence

    async def _look(self) -> _Stream:
        reply: dict[str, Any] = msgspec.json.decode(await self._platform.connection.api(f"STREAM.INFO.{s.AUDIT}"))
        if error := reply.get("error"):
            raise BusError(f"{s.AUDIT}: {error.get('description')}")
        state = reply["state"]
        return _Stream(str(reply["created"]), int(state["messages"]), int(state["last_seq"]))

    async def _empty(self, through: int) -> None:
        """Removes from the stream what is sealed; what could not be removed is removed the next time."""
        try:
            await self._platform.connection.api(f"STREAM.PURGE.{s.AUDIT}", msgspec.json.encode({"seq": through + 1}))
        except BusError as error:
            log.info("sealed audit entries not removed from the stream", error=str(error))


def _going_on(tenant: str, end: End) -> Head | None:
    """Returns where the next record belongs: behind everything that stands or was signed."""
    signed, last = end
    if signed is None:
        return last
    if last is not None and last.seq >= signed.seq:
        return last
    return Head(signed.seq, signed.hash or genesis(tenant))
