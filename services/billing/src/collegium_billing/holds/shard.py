"""One shard in the hands of its owner: taking over, deciding, journaling, answering.

Asks that came while a record was being stored go into the next one, so that a busy shard writes one record for many
holds. One rule: what a record promises is never told before the record is on its way, on the same connection; where
power may fail, not before it is stored. What was told and refused after all is asked for again, of the shard's owner.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import structlog
from collegium_bus.errors import BusError
from collegium_bus.publisher import CLAIM_CHECK_BYTES
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.holds import Billed, BudgetOpened, HoldCaptured, HoldEnded, HoldPlaced, HoldsJournaled
from collegium_contracts.requests import (
    HoldAsk,
    HoldsListReply,
    HoldsListRequest,
    HoldsRelease,
    HoldsReply,
    HoldsRequest,
)
from collegium_contracts.state import BudgetRecord, TenantRecord
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_runtime.storage import StorageBook

from collegium_billing.holds import storagebound
from collegium_billing.holds.journal import ShardJournal
from collegium_billing.holds.settledfeed import SettledFeed
from collegium_billing.holds.shardbook import NOT_YET, RECENT_MS, ShardBook
from collegium_billing.holds.windows import Amounts

log = structlog.get_logger(__name__)

# Ends alone are journaled a little later: until then the events themselves tell of them.
ENDS_LINGER_SECONDS = 0.25
SNAPSHOT_SECONDS = 30.0
SNAPSHOT_RECORDS = 2_000
TICK_SECONDS = 1.0
# The books are at most so far behind; what settled since is remembered here.
BOOKS_BEHIND_MS = RECENT_MS - 10_000
LISTED_HOLDS_MAX = 1_000


class Spent(Protocol):
    """The books' answer to what a budget had spent: [time (Unix ms), pico-dollars]."""

    async def __call__(self, tenant: str, budget: BudgetRecord, now_ms: int, until_ms: int) -> Amounts:
        """Sums what settled in the budget's window before ``until_ms``."""
        ...


class HoldShard:
    """Runs one shard from its taking until :meth:`stop`."""

    def __init__(
        self,
        platform: Platform,
        shard: int,
        feed: SettledFeed,
        spent: Spent,
        *,
        storage: StorageBook,
        tenants: Callable[[int], list[TenantRecord]],
        holds: Callable[[], bool],
    ) -> None:
        self._platform = platform
        self._shard = shard
        self._feed = feed
        self._spent = spent
        self._storage = storage
        self._tenants = tenants
        self._holds_lease = holds
        self._tells_behind = platform.settings.durability == "process"
        self._book = self._new_book()
        self._journal = ShardJournal(platform, shard)
        self._changed = False
        self._placed: list[HoldPlaced] = []
        self._ended: list[HoldEnded] = []
        self._captured: list[HoldCaptured] = []
        self._opened: list[BudgetOpened] = []
        self._replies: list[tuple[str, HoldsReply]] = []
        self._granted: list[HoldAsk] = []
        # Told, and not known to be stored.
        self._promised: list[HoldAsk] = []
        self._wake = asyncio.Event()
        self._answering = asyncio.Event()
        self._sid: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None

    @property
    def book(self) -> ShardBook:
        """The shard's state."""
        return self._book

    @property
    def is_answering(self) -> bool:
        """Whether the state was taken over and asks are answered."""
        return self._sid is not None

    def start(self) -> None:
        """Begins to take over."""
        self._task = asyncio.create_task(self._run(), name=f"holds-{self._shard}")

    async def stop(self) -> None:
        """Answers no more; what is not journaled comes again from EVENTS."""
        for task in (self._task, self._ticking):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(one for one in (self._task, self._ticking) if one is not None), return_exceptions=True)
        await self._let_go()
        if self._promised:
            # The shard is another's, who has not read of them.
            try:
                subject = s.holds_of_shard(self._shard)
                self._platform.connection.publish(subject, codec.encode(HoldsRequest(asks=self._promised)))
            except BusError as error:
                log.error("promised holds are not in the journal", shard=self._shard, error=str(error))

    async def taken(self, timeout_seconds: float) -> bool:
        """Waits until asks are answered; false where that takes longer."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._answering.wait()
        except TimeoutError:
            return False
        return True

    def learn(self, record: TenantRecord) -> None:
        """Takes a tenant's newest definition."""
        self._book.learn(record)

    def _new_book(self) -> ShardBook:
        return ShardBook(self._shard, self._tier_day)

    def _tier_day(self, tier: str) -> int | None:
        known = self._platform.settings.tiers.get(tier)
        return known.queries_per_day if known is not None else None

    async def _run(self) -> None:
        while True:
            try:
                await self._take_over()
                self._place_again()
                await self._keep()
            except (BusError, ContractError) as error:
                log.warning("shard of holds is taken over again", shard=self._shard, error=str(error))
            except Exception:  # a shard that nobody answers for while its lease is kept would stop its tenants
                log.exception("shard of holds failed and is taken over again", shard=self._shard)
            await self._let_go()
            await asyncio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter

    async def _take_over(self) -> None:
        """Makes the state from the snapshot, the records after it and the events after those."""
        self._book = book = self._new_book()
        for record in self._tenants(self._shard):
            book.learn(record)
        now = self._platform.now_ms()
        is_new = await self._journal.replay(book, now)
        if is_new:
            # Nothing was ever promised here, so what settled before ends nothing.
            book.events_sequence = await self._feed.newest()
        await self._feed.add(self._shard, book.events_sequence, self._on_billed)
        book.expire(now)
        client = self._platform.connection.client
        self._sid = client.subscribe_raw(s.holds_of_shard(self._shard), self._on_question)
        self._answering.set()
        self._ticking = asyncio.create_task(self._tick(), name=f"holds-tick-{self._shard}")
        log.info("shard of holds taken", shard=self._shard, holds=len(book.holds(None)), record=self._journal.sequence)

    def _place_again(self) -> None:
        """Holds what was told and may not have been stored; what the replayed journal holds already changes nothing."""
        now = self._platform.now_ms()
        for ask in self._promised:
            answer, hold = self._book.ask(ask, now)
            if answer.code:
                log.error("promised hold no longer covered", task=ask.task, tenant=ask.tenant, reason=answer.message)
            elif hold is not None and hold.at_ms == now:
                self._placed.append(hold)
                self._granted.append(ask)
                self._wake.set()
        self._promised = []

    async def _let_go(self) -> None:
        self._answering.clear()
        if self._sid is not None:
            self._platform.connection.client.unsubscribe_raw(self._sid)
            self._sid = None
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        await self._feed.remove(self._shard)
        replies, self._replies = self._replies, []
        for reply, answer in replies:
            self._send(reply, HoldsReply(answers=[NOT_YET] * len(answer.answers)))
        self._granted = []
        self._take_record()

    def _on_billed(self, about: s.EventSubject, billed: Billed | int, at_ms: int, sequence: int) -> None:
        if isinstance(billed, int):
            renewed = self._book.paused(about.task, about.tenant, billed, at_ms, sequence)
            if renewed is None:
                return
            self._placed.append(renewed)
        elif about.kind == "ended":
            captured = self._book.attempt_ended(about.task, about.tenant, about.attempt, billed, at_ms, sequence)
            if captured is None:
                return
            self._captured.append(captured)
        else:
            ended = self._book.settled(about.task, about.tenant, billed, at_ms, sequence)
            if ended is None:
                return
            self._ended.append(ended)
        self._wake.set()

    def _on_question(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        if not self._holds_lease():
            return
        try:
            asked = codec.request.decode(payload)
        except ContractError as error:
            log.warning("unreadable question about holds", shard=self._shard, error=str(error))
            return
        now = self._platform.now_ms()
        if isinstance(asked, HoldsRequest):
            self._decide(asked, reply.decode(), now)
        elif isinstance(asked, HoldsRelease):
            self._ended += self._book.release(asked.tenant, asked.tasks, now)
            self._wake.set()
        elif isinstance(asked, HoldsListRequest):
            self._send(reply.decode(), self._listing(asked, now))

    def _decide(self, asked: HoldsRequest, reply: str, now_ms: int) -> None:
        answers = []
        is_promise = False
        for ask in asked.asks:
            full = storagebound.refusal(ask, self._book, self._storage)
            answer, hold = (full, None) if full is not None else self._book.ask(ask, now_ms)
            answers.append(answer)
            if hold is not None:
                is_promise = True
                if hold.at_ms == now_ms:
                    self._placed.append(hold)
                    self._granted.append(ask)
        self._changed = True
        failpoint("billing.before-hold")
        if is_promise:
            self._replies.append((reply, HoldsReply(answers=answers)))
            self._wake.set()
        else:
            self._send(reply, HoldsReply(answers=answers))

    def _listing(self, asked: HoldsListRequest, now_ms: int) -> HoldsListReply:
        book = self._book
        before = now_ms - asked.older_than_ms
        holds = [
            task.hold
            for name, tenant in book.tenants.items()
            if asked.tenant is None or name == asked.tenant
            for task in tenant.tasks.values()
            if task.hold is not None and task.hold.at_ms <= before
        ]
        most = min(asked.holds_max, LISTED_HOLDS_MAX)
        listed = {hold.task for hold in sorted(holds, key=lambda hold: hold.at_ms)[:most]}
        return HoldsListReply(
            budgets=book.standings(asked.tenant, now_ms),
            holds=[hold for hold in book.holds(asked.tenant) if hold.task in listed],
            over_hold=book.over_hold,
        )

    def _send(self, reply: str, answer: HoldsReply | HoldsListReply) -> None:
        if not reply:
            return
        try:
            self._platform.connection.publish(reply, codec.encode(answer))
        except BusError as error:
            log.info("answer about holds not sent", shard=self._shard, error=str(error))

    async def _keep(self) -> None:
        """Stores what was decided and answers, until the shard is lost."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not (self._placed or self._opened or self._replies) and (self._ended or self._captured):
                # A hold that comes meanwhile does not wait for it.
                try:
                    async with asyncio.timeout(ENDS_LINGER_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
            if self._placed or self._ended or self._captured or self._opened or self._replies:
                await self._store_record()
            if self._journal.records >= SNAPSHOT_RECORDS:
                await self._store_snapshot()

    async def _store_record(self) -> None:
        decided = self._take_record()
        replies, self._replies = self._replies, []
        granted, self._granted = self._granted, []
        if not (decided.placed or decided.ended or decided.captured or decided.opened):
            self._answer(replies)
            return
        record = codec.encode(decided)
        is_told_behind = self._tells_behind and len(record) <= CLAIM_CHECK_BYTES
        if is_told_behind:
            # Runs when the record has been written to the connection, and in the same turn of the loop.
            asyncio.get_running_loop().call_soon(self._answer, replies)
            replies, self._promised = [], granted
        try:
            await self._journal.append(record)
            self._promised = []
        except BaseException:
            self._replies = replies + self._replies
            raise
        failpoint("billing.after-hold")
        self._answer(replies)

    def _take_record(self) -> HoldsJournaled:
        """Returns what is to be journaled; from then on it is in hand no more."""
        record = HoldsJournaled(
            shard=self._shard,
            at_ms=self._platform.now_ms(),
            events_sequence=self._book.events_sequence,
            opened=self._opened,
            placed=self._placed,
            ended=self._ended,
            captured=self._captured,
        )
        self._placed, self._ended, self._captured, self._opened = [], [], [], []
        return record

    def _answer(self, replies: list[tuple[str, HoldsReply]]) -> None:
        for reply, answer in replies:
            self._send(reply, answer)

    async def _store_snapshot(self) -> None:
        self._changed = False
        await self._journal.store_snapshot(self._book, self._platform.now_ms())

    async def _tick(self) -> None:
        """Ends what expired, opens budgets that are new, and keeps the snapshot young."""
        loop = asyncio.get_running_loop()
        snapshot_at = loop.time() + SNAPSHOT_SECONDS
        while True:
            try:
                await self._open_budgets()
                if over := self._book.expire(self._platform.now_ms()):
                    log.info("holds expired", shard=self._shard, tasks=len(over), first=over[0])
                if loop.time() >= snapshot_at:
                    snapshot_at = loop.time() + SNAPSHOT_SECONDS
                    if (self._changed or self._journal.records) and self._holds_lease():
                        await self._store_snapshot()
            except BusError as error:
                log.info("upkeep of holds failed, trying again", shard=self._shard, error=str(error))
            await asyncio.sleep(TICK_SECONDS if not self._book.unopened() else 0.05)

    async def _open_budgets(self) -> None:
        for tenant, budget_id in self._book.unopened():
            book = self._book.tenants[tenant]
            record = next((one for one in book.record.budgets if one.id == budget_id), None)
            if record is None:
                continue
            now = self._platform.now_ms()
            until = now - BOOKS_BEHIND_MS
            spent = await self._spent(tenant, record, now, until)
            opened = BudgetOpened(
                tenant=tenant,
                budget=budget_id,
                spent=[*spent, *self._book.recent_of(tenant, budget_id, until)],
                after_ended=len(self._ended),
                at_ms=now,
            )
            self._book.open(opened, now)
            self._opened.append(opened)
            self._wake.set()
            log.info("budget opened", tenant=tenant, budget=budget_id, steps=len(opened.spent))
