"""The books of holds under duplicates, reordering and lateness: each charge counts once, whoever owns the shard."""

from __future__ import annotations

import random

from collegium_billing.holds.shardbook import ShardBook
from collegium_contracts.holds import Billed, BudgetOpened, HoldEnded, HoldPlaced, HoldsJournaled, HoldsSnapshot
from collegium_contracts.requests import HoldAsk
from collegium_contracts.state import BudgetRecord, TenantRecord
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY_MS = 86_400_000
LIMIT = 500
RECORD = TenantRecord(
    id="acme",
    tier="pro",
    budgets=[
        # Longer than any history here, so that what was captured stays counted.
        BudgetRecord(id="b", scope="tenant", limit_picos=LIMIT, window_seconds=3_650 * 86_400),
        BudgetRecord(id="p", scope="project", of="blue", limit_picos=LIMIT // 2, window_seconds=3_650 * 86_400),
    ],
)
Settled = tuple[int, int, int, str]


class HoldDisorder(RuleBasedStateMachine):
    """Tasks end in any order, some a day after their hold; events come again; the shard changes hands.

    ``events`` is the stream: the settled messages in its order, each [sequence, task, picos, project].
    """

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = NOW
        self.asked = 0
        self.open: dict[int, tuple[int, int, str]] = {}
        self.late: dict[int, tuple[int, str]] = {}
        self.events: list[Settled] = []
        self.journal: list[HoldsJournaled] = []
        self.snapshot: tuple[HoldsSnapshot, int] | None = None
        self.book = self.new_book()
        opened = [BudgetOpened(tenant="acme", budget=one, spent=[]) for one in ("b", "p")]
        for one in opened:
            self.book.open(one, self.now)
        self.write(opened=opened)

    def new_book(self) -> ShardBook:
        book = ShardBook(0, lambda _tier: None)
        book.learn(RECORD)
        return book

    def write(self, **parts: list[BudgetOpened] | list[HoldPlaced] | list[HoldEnded]) -> None:
        self.journal.append(
            HoldsJournaled(shard=0, at_ms=self.now, events_sequence=self.book.events_sequence, **parts)  # type: ignore[arg-type]
        )

    @rule(picos=st.integers(1, 60), seconds=st.integers(60, 3_600), project=st.sampled_from(["blue", "red"]))
    def ask(self, picos: int, seconds: int, project: str) -> None:
        self.asked += 1
        expires = self.now + seconds * 1000
        asked = HoldAsk(task=f"t{self.asked}", tenant="acme", project=project, picos=picos, expires_at_ms=expires)
        for _ in range(self.chance.randint(1, 3)):
            answer, hold = self.book.ask(asked, self.now)
        if not answer.code:
            assert hold is not None
            self.write(placed=[hold])
            self.open[self.asked] = (picos, expires, project)

    @precondition(lambda self: self.open or self.late)
    @rule(share=st.floats(0, 1))
    def one_settles(self, share: float) -> None:
        task = self.chance.choice([*self.open, *self.late])
        if task in self.open:
            picos, _, project = self.open.pop(task)
        else:
            picos, project = self.late.pop(task)
        event = (len(self.events) * 3 + 1, task, int(picos * share), project)
        self.events.append(event)
        self.tell(event)

    def tell(self, event: Settled) -> None:
        sequence, task, picos, project = event
        billed = Billed(picos=picos, tokens=0, project=project, key_id="")
        ended = self.book.settled(f"t{task}", "acme", billed, self.now, sequence)
        if ended is not None:
            self.write(ended=[ended])

    @precondition(lambda self: self.events)
    @rule()
    def the_stream_is_read_again(self) -> None:
        for event in self.events[self.chance.randrange(len(self.events)) :]:
            self.tell(event)

    @rule(ms=st.sampled_from([1_000, 600_000, DAY_MS]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        for name in self.book.expire(self.now):
            picos, expires, project = self.open.pop(int(name[1:]))
            assert expires < self.now
            self.late[int(name[1:])] = (picos, project)

    @rule()
    def a_snapshot_is_taken(self) -> None:
        self.snapshot = (self.book.snapshot(len(self.journal), self.now), len(self.journal))

    @rule()
    def the_shard_changes_hands(self) -> None:
        self.book = self.new_book()
        after = 0
        if self.snapshot is not None:
            self.book.restore(self.snapshot[0], self.now)
            after = self.snapshot[1]
        for record in self.journal[after:]:
            self.book.apply(record, self.now)
        # The reader begins anywhere before what it lacks.
        if self.events:
            self.the_stream_is_read_again()
        self.book.expire(self.now)

    @invariant()
    def every_charge_counts_once(self) -> None:
        if not hasattr(self, "book"):
            return
        for one in self.book.standings("acme", self.now):
            counts = {"b": ("blue", "red"), "p": ("blue",)}[one.budget]
            assert one.captured_picos == sum(picos for _, _, picos, project in self.events if project in counts)
            assert one.held_picos == sum(picos for picos, _, project in self.open.values() if project in counts)


TestHoldDisorder = HoldDisorder.TestCase
TestHoldDisorder.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
