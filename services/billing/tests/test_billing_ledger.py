"""The ledger: the same whatever came how often and in which order, whole by force, and every law finds its breach."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import asyncpg
import pytest
from collegium_billing.books.auditing import Auditor, LawWatch
from collegium_billing.books.booking import book
from collegium_billing.books.laws import ARCHIVE_GAPS, LAWS
from collegium_billing.books.ledger import Posting, correction, postings
from collegium_billing.books.ledger_store import Correction, LedgerStore, post
from collegium_billing.books.store import Store
from collegium_contracts.messages import AttemptRef, AttemptStarted, JourneyMessage
from collegium_contracts.money import Price, Usage, cost_usd_picos
from collegium_store import open_pool
from collegium_telemetry import names
from collegium_telemetry.metrics import Metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.billing.tests.conftest import Events

PRICE = Price(input_picos=100, output_picos=200, cached_input_picos=10, cache_write_picos=125, call_picos=7)
DOUBLE = Price(input_picos=200, output_picos=400)
TENANTS = ("t0", "t1", "acme")
Ledger = dict[str, tuple[Any, ...]]


def ledger_of(batches: Iterable[Sequence[JourneyMessage]]) -> Ledger:
    """What booking these batches one after the other leaves: of each event id the first posting, its time aside."""
    kept: Ledger = {}
    for batch in batches:
        for posting in postings(book(batch)):
            kept.setdefault(posting.event_id, _timeless(posting))
    return kept


def _timeless(posting: Posting) -> tuple[Any, ...]:
    # The time is that of the first telling: entries never change, and a later telling may have an earlier time.
    return tuple(posting._replace(at_ms=0))


def balances(ledger: Ledger) -> dict[str, int]:
    sums: dict[str, int] = {}
    for posting in (Posting(*fields) for fields in ledger.values()):
        sums[posting.debit] = sums.get(posting.debit, 0) + int(posting.amount_picos)
        sums[posting.credit] = sums.get(posting.credit, 0) - int(posting.amount_picos)
    return sums


class Disorder(RuleBasedStateMachine):
    """Usage events come in any order, some twice, some a day late, in batches of any size."""

    @initialize(events=Events().histories(), seed=st.integers(0, 2**32))
    def begin(self, events: list[JourneyMessage], seed: int) -> None:
        self.events = events
        self.rng = random.Random(seed)
        self.late = list(events)
        self.batches: list[list[JourneyMessage]] = []

    @rule(size=st.integers(1, 6))
    def some_come(self, size: int) -> None:
        self.rng.shuffle(self.late)
        self.batches.append([self.late.pop() for _ in range(min(size, len(self.late)))])

    @rule(size=st.integers(1, 6))
    def some_come_again(self, size: int) -> None:
        self.batches.append(self.rng.choices(self.events, k=size))

    @invariant()
    def it_sums_to_zero(self) -> None:
        assert sum(balances(ledger_of(getattr(self, "batches", []))).values()) == 0

    def teardown(self) -> None:
        if hasattr(self, "events"):
            self.rng.shuffle(self.late)
            assert ledger_of([*self.batches, self.late]) == ledger_of([self.events])


TestDisorder = Disorder.TestCase
TestDisorder.settings = settings(max_examples=150, stateful_step_count=12, deadline=None)


@given(st.data())
def test_what_is_owed_is_what_was_charged_and_what_was_spent_is_cost_or_waste(data: st.DataObject):
    events = data.draw(Events().histories())
    books = book(events)
    sums = balances(ledger_of([events]))
    assert sum(v for k, v in sums.items() if k.startswith("tenant/")) == sum(int(t.charge_picos) for t in books.tasks)
    assert sum(v for k, v in sums.items() if k.startswith("waste/")) == sum(
        int(a.cost_picos) for a in books.attempts if a.wasted
    )
    assert -sum(v for k, v in sums.items() if k.startswith("provider/")) == sum(
        int(a.cost_picos) for a in books.attempts
    )


def test_a_correction_below_zero_is_owed_less():
    made = correction("c1", "acme", -5, 1)
    assert balances({"c": tuple(made)}) == {"tenant/acme/receivable": -5, "adjustment/acme": 5}


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="ledger-test")
    await add_tenants(pool)
    yield pool
    await pool.close()


async def add_tenants(pool: asyncpg.Pool) -> None:
    for tenant in TENANTS:
        await pool.execute("INSERT INTO billing.tenants (id, tier, created_at) VALUES ($1, 'free', now())", tenant)


async def stored(pool: asyncpg.Pool) -> Ledger:
    rows = await pool.fetch(
        """
        SELECT event_id, kind, 0, debit.tenant, debit.project, debit.key_id, debit.model, debit.task, debit.account,
               credit.account, debit.amount_picos::text, price_version, input_tokens, cached_input_tokens,
               cache_write_tokens, output_tokens, reasoning_tokens
        FROM billing.transactions
        JOIN billing.entries AS debit ON debit.transaction = id AND debit.line = 1
        JOIN billing.entries AS credit ON credit.transaction = id AND credit.line = 2
        """
    )
    return {row[0]: tuple(row) for row in rows}


async def absent(_sequence: int) -> str | None:
    return None


async def broken(pool: asyncpg.Pool, make: Any) -> dict[str, int]:
    auditor = Auditor(LedgerStore(pool), absent)
    found = await auditor.audit(make.now_ms - 10**9, make.now_ms + 10**9)
    return {one.law.name: one.violations for one in found if one.violations}


async def test_events_in_disorder_make_the_same_ledger_in_postgresql(
    pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    store = Store(pool)
    events = [event for number in range(25) for event in make.a_history(number, rng)]
    told = [*events, *rng.choices(events, k=len(events) // 2)]
    rng.shuffle(told)
    batches = [told[place : place + 7] for place in range(0, len(told), 7)]
    await asyncio.gather(*(store.book(book(batch), []) for batch in batches))
    assert await stored(pool) == ledger_of([events])
    assert await broken(pool, make) == {}


async def test_entries_are_only_added_and_sum_to_zero(pool: asyncpg.Pool, make: Any) -> None:
    await Store(pool).book(book([make.settled(make.task("a"), [make.call()])]), [])
    for table in ("transactions", "entries", "corrections", "prices"):
        for change in (f"DELETE FROM billing.{table}", f"TRUNCATE billing.{table}"):
            with pytest.raises(asyncpg.RestrictViolationError):
                await pool.execute(change)
    with pytest.raises(asyncpg.RestrictViolationError):
        await pool.execute("UPDATE billing.entries SET amount_picos = 1")
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("INSERT INTO billing.entries SELECT 99, 1, 'cost/m', 5, 'acme', 'default', 'k', 'm', 't'")


async def test_what_the_ledger_cannot_hold_is_in_no_book(pool: asyncpg.Pool, make: Any) -> None:
    with pytest.raises(asyncpg.PostgresError):
        await Store(pool).book(book([make.settled(make.task("a"), [make.call()], charge=10**40)]), [])
    assert await pool.fetchval("SELECT count(*) FROM billing.tasks") == 0
    assert await stored(pool) == {}


def priced(make: Any, name: str, *, off_by: int = 0, charge: int | None = None) -> list[JourneyMessage]:
    """The events of a task whose call has a pinned price."""
    usage = Usage(input_tokens=50, output_tokens=9, cached_input_tokens=20, cache_write_tokens=5)
    cost = cost_usd_picos(PRICE, usage) + off_by
    call = make.call(cost=cost, usage=Usage(50, 9, 20, 0, False, cost, 0, 5), price_version=3)
    task = make.task(name)
    attempt = AttemptRef(
        number=1, of=1, model="m", rank="student", pool="general", price=PRICE, charge=DOUBLE, price_version=3
    )
    began = AttemptStarted(task=task, attempt=attempt, delivery=1, worker="w", at_ms=make.now_ms)
    charged = cost_usd_picos(DOUBLE, usage) if charge is None else charge
    return [began, make.settled(task, [call], charge=charged)]


async def test_a_call_has_the_price_of_its_version(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool)
    await store.book(book(priced(make, "a")), [])
    assert [price.version for price in await LedgerStore(pool).prices("m", 9)] == [3]
    assert await broken(pool, make) == {}
    await store.book(book(priced(make, "b", off_by=1)), [])
    assert await broken(pool, make) == {"usage_times_price_is_cost": 1}


async def test_a_call_that_failed_without_usage_cost_nothing_whatever_a_call_costs(
    pool: asyncpg.Pool, make: Any
) -> None:
    store = Store(pool)
    await store.book(book(priced(make, "a")), [])
    failed = make.call(usage=Usage(), price_version=3, succeeded=False, error_code="upstream_error")
    await store.book(book([make.settled(make.task("b"), [failed], charge=0)]), [])
    assert await broken(pool, make) == {}
    charged = make.call(usage=Usage(cost_usd_picos=6), price_version=3)
    await store.book(book([make.settled(make.task("c"), [charged], charge=0)]), [])
    assert await broken(pool, make) == {"usage_times_price_is_cost": 1}


async def test_a_charge_above_what_was_booked_is_found(pool: asyncpg.Pool, make: Any) -> None:
    await Store(pool).book(book(priced(make, "a", charge=10**6)), [])
    assert await broken(pool, make) == {"charged_within_booked": 1}


SABOTAGE = {
    "transaction_sums_to_zero": "INSERT INTO billing.transactions (event_id, kind, at, tenant)"
    " SELECT 'x', 'charge', at, tenant FROM billing.transactions LIMIT 1",
    "ledger_sums_to_zero": "UPDATE billing.entries SET amount_picos = amount_picos + 1 WHERE account LIKE 'revenue/%'",
    "one_charge_per_task": "WITH new AS (INSERT INTO billing.transactions (event_id, kind, at, tenant)"
    " SELECT 'x', kind, at, tenant FROM billing.transactions WHERE kind = 'charge' LIMIT 1 RETURNING id)"
    " INSERT INTO billing.entries SELECT new.id, line, account, amount_picos, tenant, project, key_id, model, task"
    " FROM new, billing.entries"
    " WHERE transaction = (SELECT id FROM billing.transactions WHERE kind = 'charge' LIMIT 1)",
    "charge_is_in_ledger": "UPDATE billing.tasks SET charge_picos = charge_picos + 1",
    "cost_is_in_ledger": "UPDATE billing.attempts SET wasted = NOT wasted",
    "tenant_is_known": "DELETE FROM billing.tenants WHERE id = 'acme'",
    "correction_is_in_ledger": "INSERT INTO billing.corrections SELECT 'c', 'acme', 5, 'why', at"
    " FROM billing.transactions LIMIT 1",
    ARCHIVE_GAPS: "SELECT archive.ensure_day((SELECT min(at)::date FROM billing.transactions));"
    " INSERT INTO archive.events SELECT 'EVENTS', n, 's', 't', 'k', at, '', ''"
    " FROM (VALUES (4), (7)) AS numbers (n), (SELECT at FROM billing.transactions LIMIT 1) AS moment",
}


@pytest.mark.parametrize("law", sorted(SABOTAGE))
async def test_a_law_finds_its_breach(pool: asyncpg.Pool, make: Any, law: str) -> None:
    await Store(pool).book(book([make.settled(make.task("a"), [make.call()])]), [])
    assert await broken(pool, make) == {}
    for table in ("transactions", "entries"):
        await pool.execute(f"ALTER TABLE billing.{table} DISABLE TRIGGER USER")
    await pool.execute(SABOTAGE[law])
    assert law in await broken(pool, make)


def test_every_law_is_broken_by_some_test():
    with_own_tests = {"usage_times_price_is_cost", "charged_within_booked"}
    assert {law.name for law in LAWS} == set(SABOTAGE) | with_own_tests


async def test_a_gap_that_others_explain_is_none(pool: asyncpg.Pool, make: Any) -> None:
    await Store(pool).book(book([make.settled(make.task("a"), [make.call()])]), [])
    await pool.execute(SABOTAGE[ARCHIVE_GAPS])
    subjects = {5: "again.turns.3.task.settled.acme.t", 6: "again.billing.3.task.settled.acme.t"}

    async def subject_of(sequence: int) -> str | None:
        return subjects[sequence]

    auditor = Auditor(LedgerStore(pool), subject_of)
    found = {one.law.name: one for one in await auditor.audit(make.now_ms - 10**9, make.now_ms + 10**9)}
    assert found[ARCHIVE_GAPS].examples == [f"EVENTS 6: {subjects[6]}"]


async def test_the_live_check_tells_metrics(pool: asyncpg.Pool, make: Any) -> None:
    await Store(pool).book(book([make.settled(make.task("a"), [make.call()])]), [])
    await pool.execute(SABOTAGE["charge_is_in_ledger"])
    metrics = Metrics("billing")
    watch = LawWatch(Auditor(LedgerStore(pool), absent), metrics, lambda: make.now_ms + 10 * 60_000)
    await watch.check()
    shown = metrics.render().decode()
    assert f'{names.METRIC_LAW_VIOLATIONS}{{law="charge_is_in_ledger"}} 1.0' in shown
    assert f'{names.METRIC_LAW_VIOLATIONS}{{law="one_charge_per_task"}} 0.0' in shown


async def test_a_correction_is_made_once(pool: asyncpg.Pool, make: Any) -> None:
    store = LedgerStore(pool)
    wanted = Correction("c-1", "acme", -7 * 10**12, "refund", make.now_ms)
    assert await store.correct(wanted) == (wanted, True)
    again = wanted._replace(amount_picos=1, at_ms=make.now_ms + 5)
    assert await store.correct(again) == (wanted, False)
    assert balances(await stored(pool)) == {"tenant/acme/receivable": -7 * 10**12, "adjustment/acme": 7 * 10**12}
    assert await broken(pool, make) == {}


async def test_two_replicas_post_the_same_transaction_once(pool: asyncpg.Pool) -> None:
    posting = correction("c-1", "acme", 5, 1)

    async def add() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await post(connection, [posting])

    await asyncio.gather(*(add() for _ in range(4)))
    assert await pool.fetchval("SELECT count(*) FROM billing.entries") == 2
