"""What a shard's owner decides: no budget is overrun, limits count, the journal alone makes the state again."""

from __future__ import annotations

import random

import pytest
from collegium_billing.holds.budgetbook import Budget
from collegium_billing.holds.shardbook import ShardBook
from collegium_billing.holds.windows import CalendarWindow, RollingWindow
from collegium_contracts.holds import Billed, BudgetOpened, HoldEnded, HoldPlaced, HoldsJournaled
from collegium_contracts.requests import HoldAsk
from collegium_contracts.state import BudgetRecord, KeyRecord, RateLimits, TenantRecord
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
HOUR = 3_600_000


def tenant(*budgets: BudgetRecord, limits: RateLimits | None = None, **fields) -> TenantRecord:
    return TenantRecord(id="acme", tier="pro", budgets=list(budgets), limits=limits, **fields)


def budget(limit: int, name: str = "b", **fields) -> BudgetRecord:
    return BudgetRecord(**{"id": name, "scope": "tenant", "limit_picos": limit, "window_seconds": 3600} | fields)


def shard(record: TenantRecord, per_day: int | None = None) -> ShardBook:
    book = ShardBook(0, lambda _tier: per_day)
    book.learn(record)
    for name, budget_id in book.unopened():
        book.open(BudgetOpened(tenant=name, budget=budget_id, spent=[]), NOW)
    return book


def ask(number: int, picos: int = 10, **fields) -> HoldAsk:
    return HoldAsk(**{"task": f"t{number}", "tenant": "acme", "picos": picos, "expires_at_ms": NOW + HOUR} | fields)


def settle(book: ShardBook, number: int, picos: int, sequence: int, at_ms: int = NOW, **fields) -> HoldEnded | None:
    billed = Billed(**{"picos": picos, "tokens": 0, "project": "default", "key_id": ""} | fields)
    return book.settled(f"t{number}", "acme", billed, at_ms, sequence)


def test_a_budget_holds_the_worst_case_and_captures_what_was_charged():
    book = shard(tenant(budget(25)))
    assert [book.ask(ask(n), NOW)[0].code for n in range(3)] == ["", "", "insufficient_quota"]
    assert settle(book, 0, 2, 1) is not None
    (standing,) = book.standings("acme", NOW)
    assert (standing.captured_picos, standing.held_picos) == (2, 10)
    assert book.ask(ask(3), NOW)[0].code == ""
    refusal, placed = book.ask(ask(4), NOW)
    assert placed is None
    assert "budget b of tenant acme" in refusal.message
    assert "more of it is free when running requests end" in refusal.message or "renews at" in refusal.message


def test_asking_again_changes_nothing():
    book = shard(tenant(budget(25)))
    first = book.ask(ask(1), NOW)
    assert book.ask(ask(1), NOW + 5) == first
    assert book.standings("acme", NOW)[0].held_picos == 10


def test_tenant_project_and_key_are_held_at_once_or_not_at_all():
    records = [
        budget(100),
        budget(30, "p", scope="project", of="blue"),
        budget(10, "k", scope="key", of="k1"),
    ]
    book = shard(tenant(*records))
    assert book.ask(ask(1, project="blue", key_id="k1"), NOW)[0].code == ""
    refusal = book.ask(ask(2, project="blue", key_id="k1"), NOW)[0]
    assert "budget k of key k1" in refusal.message
    assert {one.budget: one.held_picos for one in book.standings("acme", NOW)} == {"b": 10, "p": 10, "k": 10}
    assert book.ask(ask(3, project="blue", key_id="k2"), NOW)[0].code == ""
    assert settle(book, 1, 4, 1, project="blue", key_id="k1") is not None
    assert {one.budget: one.captured_picos for one in book.standings("acme", NOW)} == {"b": 4, "p": 4, "k": 4}


def test_what_is_captured_above_its_hold_is_counted_and_told():
    book = shard(tenant(budget(25)))
    book.ask(ask(1), NOW)
    settle(book, 1, 40, 1)
    assert book.over_hold == 1
    assert book.ask(ask(2, 1), NOW)[0].code == "insufficient_quota"
    assert book.ask(ask(3, 0), NOW)[0].code == "", "what costs nothing needs no budget"


def test_a_rolling_window_gives_back_what_is_too_old_and_says_when():
    book = shard(tenant(budget(10)))
    book.ask(ask(1), NOW)
    settle(book, 1, 10, 1)
    refusal = book.ask(ask(2), NOW + 1)[0]
    renews = NOW + HOUR + 8_000
    assert NOW + HOUR <= NOW + 1 + refusal.retry_after_ms <= renews
    assert "renews at 2026-01-01T01:0" in refusal.message
    assert book.ask(ask(2), NOW + 1 + refusal.retry_after_ms)[0].code == ""


def test_a_request_that_the_budget_can_never_cover_is_told_so():
    refusal = shard(tenant(budget(5))).ask(ask(1), NOW)[0]
    assert "never holds that much" in refusal.message
    assert refusal.retry_after_ms == 0


def test_what_a_calendar_period_overspent_counts_in_the_next():
    record = budget(100, window="calendar_month")
    book = Budget("acme", record, NOW)
    book.window.add(NOW, 130)
    february = NOW + 32 * 24 * HOUR
    assert book.left(february) == 70
    assert book.left(february + 31 * 24 * HOUR) == 100, "a period that overspent nothing leaves nothing"
    early = CalendarWindow(is_month=False, limit=5, now_ms=NOW)
    early.add(NOW - 1, 3)
    assert early.total == 0, "yesterday's is yesterday's"


def test_an_expired_hold_is_given_back_and_its_late_settlement_still_counts():
    book = shard(tenant(budget(10)))
    book.ask(ask(1, expires_at_ms=NOW + 5), NOW)
    assert book.expire(NOW + 6) == ["t1"]
    assert book.standings("acme", NOW)[0].held_picos == 0
    settle(book, 1, 7, 1)
    assert book.standings("acme", NOW)[0].captured_picos == 7


def test_a_released_hold_costs_nothing():
    book = shard(tenant(budget(10)))
    book.ask(ask(1), NOW)
    (ended,) = book.release("acme", ["t1", "unknown"], NOW)
    assert ended.why == "released"
    assert book.ask(ask(2), NOW)[0].code == ""


def test_requests_are_limited_by_the_minute_by_the_day_and_for_a_key():
    record = tenant(
        limits=RateLimits(requests_per_minute=3),
        keys=[KeyRecord(id="k1", secret_sha256="", limits=RateLimits(requests_per_minute=1))],
    )
    book = shard(record, per_day=4)
    first = book.ask(ask(1, key_id="k1"), NOW)[0]
    assert (first.rates.limit_requests, first.rates.remaining_requests) == (1, 0)
    refusal = book.ask(ask(2, key_id="k1"), NOW)[0]
    assert (refusal.code, refusal.retry_after_ms) == ("rate_limited", 61_000)
    assert [book.ask(ask(n), NOW)[0].rates.remaining_requests for n in (3, 4)] == [1, 0]
    assert book.ask(ask(5), NOW)[0].code == "rate_limited"
    later = NOW + 61_000
    assert book.ask(ask(6), later)[0].rates.remaining_requests == 0, "the day's fourth"
    refusal = book.ask(ask(7), later)[0]
    assert (refusal.code, refusal.rates.limit_requests) == ("quota_exceeded", 4)
    assert 23 * HOUR < refusal.retry_after_ms <= 24 * HOUR + 173_000


def test_tokens_count_as_asked_while_open_and_as_used_afterwards():
    book = shard(tenant(limits=RateLimits(tokens_per_minute=100)))
    assert book.ask(ask(1, tokens=80), NOW)[0].rates.remaining_tokens == 20
    assert book.ask(ask(2, tokens=30), NOW)[0].code == "rate_limited"
    settle(book, 1, 0, 1, tokens=10)
    assert book.ask(ask(3, tokens=85), NOW)[0].rates.remaining_tokens == 5
    settle(book, 3, 0, 2, tokens=85)
    assert book.ask(ask(4, tokens=500), NOW)[0].code == "rate_limited"
    assert book.ask(ask(4, tokens=500), NOW + 61_000)[0].code == "", "more than the limit goes when nothing else does"


def test_answers_that_stood_already_count_as_requests_and_neither_hold_nor_stay_open():
    book = shard(tenant(budget(25), limits=RateLimits(requests_per_minute=10, concurrency=1, tokens_per_minute=9)))
    assert book.ask(ask(1, tokens=5), NOW)[0].code == ""
    answer, hold = book.ask(ask(2, 0, hits=1), NOW)
    assert (answer.code, answer.rates.remaining_requests, answer.rates.remaining_tokens, hold) == ("", 8, 4, None)
    assert book.ask(ask(0, 0, hits=7, are_given=True), NOW)[0].rates.remaining_requests == 1
    assert book.ask(ask(0, 0, hits=5, are_given=True), NOW)[0].rates.remaining_requests == 0, "given, so it is counted"
    refusal = book.ask(ask(3, 0, hits=1), NOW)[0]
    assert (refusal.code, refusal.rates.remaining_requests) == ("rate_limited", 0)
    assert 60_000 <= refusal.retry_after_ms <= 61_000
    assert len(book.tenants["acme"].tasks) == 1
    book.learn(tenant(budget(25), budget(5, "new")))
    assert book.ask(ask(4, 0, hits=1), NOW)[0].code == "", "no budget has to be known for it"


def test_open_requests_are_limited_where_that_is_asked_for():
    book = shard(tenant(limits=RateLimits(concurrency=1)))
    assert book.ask(ask(1), NOW)[0].code == ""
    assert book.ask(ask(2), NOW)[0].code == "rate_limited"
    assert book.ask(ask(3, checks=True), NOW)[0].code == "", "it is part of the one that is open"
    settle(book, 3, 0, 1)
    settle(book, 1, 0, 2)
    assert book.ask(ask(2), NOW)[0].code == ""


def test_who_is_not_known_yet_is_asked_to_come_again():
    book = ShardBook(0, lambda _tier: None)
    assert book.ask(ask(1), NOW)[0].code == "billing_unavailable"
    book.learn(tenant(budget(5)))
    assert book.ask(ask(1), NOW)[0].code == "billing_unavailable", "what was spent before is not read yet"


def test_a_budget_that_is_raised_keeps_what_it_counted_and_one_that_is_removed_holds_nothing():
    book = shard(tenant(budget(10)))
    book.ask(ask(1), NOW)
    book.learn(tenant(budget(20)))
    assert book.unopened() == []
    (standing,) = book.standings("acme", NOW)
    assert (standing.limit_picos, standing.held_picos) == (20, 10)
    book.learn(tenant())
    assert book.ask(ask(2, 10**15), NOW)[0].code == ""
    book.learn(tenant(budget(20, scope="project", of="x")))
    assert book.unopened() == [("acme", "b")], "another scope is another past"


def test_what_settled_just_now_is_known_to_a_budget_that_is_opened():
    book = shard(tenant())
    settle(book, 1, 5, 1, NOW, project="blue")
    settle(book, 2, 7, 2, NOW + 10)
    book.learn(tenant(budget(100), budget(50, "p", scope="project", of="blue")))
    assert book.recent_of("acme", "b", NOW) == [(NOW, 5), (NOW + 10, 7)]
    assert book.recent_of("acme", "p", NOW) == [(NOW, 5)]


steps = st.lists(
    st.tuples(st.sampled_from(["ask", "settle", "release", "later", "expire"]), st.integers(0, 12), st.integers(0, 40)),
    max_size=60,
)


@given(steps, st.integers(0, 59))
def test_the_journal_alone_makes_the_state_again_and_no_budget_is_ever_overrun(history, cut):
    """Replayed from a snapshot anywhere and the records after it, the next owner decides as the last one would have."""
    record = tenant(budget(100), budget(60, "p", scope="project", of="p0", window="calendar_day"))
    book, now = shard(record), NOW
    records = [
        HoldsJournaled(
            shard=0,
            at_ms=NOW,
            events_sequence=0,
            opened=[BudgetOpened(tenant="acme", budget=one, spent=[]) for one in ("b", "p")],
        )
    ]
    snapshot = None
    sequence = 0
    for index, (what, number, amount) in enumerate(history):
        placed: list[HoldPlaced] = []
        ended: list[HoldEnded] = []
        if what == "ask":
            expires = now + 1_000 * amount
            answer, hold = book.ask(ask(number, amount, project=f"p{number % 2}", expires_at_ms=expires), now)
            if not answer.code and hold is not None and hold.at_ms == now:
                placed.append(hold)
        elif what == "settle":
            sequence += 1
            hold = book.tenants["acme"].tasks.get(f"t{number}")
            picos = min(amount, hold.hold.picos) if hold is not None and hold.hold is not None else 0
            told = settle(book, number, picos, sequence, now, project=f"p{number % 2}")
            ended += [told] if told is not None else []
        elif what == "release":
            ended += book.release("acme", [f"t{number}"], now)
        elif what == "later":
            now += 1_000 * amount
        else:
            book.expire(now)
        if placed or ended:
            records.append(
                HoldsJournaled(shard=0, at_ms=now, events_sequence=book.events_sequence, placed=placed, ended=ended)
            )
        if index == cut:
            snapshot = (book.snapshot(len(records), now), len(records))
        for one in book.standings("acme", now):
            assert one.captured_picos + one.held_picos <= one.limit_picos
    again = ShardBook(0, lambda _tier: None)
    again.learn(record)
    if snapshot is not None:
        again.restore(snapshot[0], now)
    for one in records[snapshot[1] if snapshot is not None else 0 :]:
        again.apply(one, now)
    book.expire(now)
    again.expire(now)
    assert again.standings("acme", now) == book.standings("acme", now)
    assert sorted(one.task for one in again.holds("acme")) == sorted(one.task for one in book.holds("acme"))


@given(st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 100)), max_size=60), st.integers(1_000, 900_000))
def test_a_rolling_window_never_forgets_early_and_soon_enough(amounts, length):
    window = RollingWindow(length)
    for at, amount in amounts:
        window.add(at, amount)
    end = 5_000_000
    window.forget(end)
    step = max(1_000, -(-length // 500))
    least = sum(amount for at, amount in amounts if at > end - length)
    most = sum(amount for at, amount in amounts if at > end - length - step)
    assert least <= window.total <= most
    assert RollingWindow(length, window.amounts()).total == window.total
    if window.total:
        when = window.frees_at(window.total, end)
        window.forget(when)
        assert window.total == 0


@pytest.mark.parametrize("seed", range(3))
def test_many_askers_never_hold_more_than_there_is(seed):
    rng = random.Random(seed)
    book = shard(tenant(budget(1_000)))
    granted = [n for n in range(500) if not book.ask(ask(n, rng.randint(1, 20)), NOW)[0].code]
    (standing,) = book.standings("acme", NOW)
    assert standing.held_picos <= 1_000
    for sequence, number in enumerate(granted, 1):
        settle(book, number, 1, sequence)
    (standing,) = book.standings("acme", NOW)
    assert (standing.held_picos, standing.captured_picos) == (0, len(granted))


def test_what_waited_is_refused_where_its_key_has_ended_and_goes_on_where_it_was_rotated():
    keys = [
        KeyRecord(id="lives", secret_sha256="", follows=["rotated", "twice"]),
        KeyRecord(id="rotated", secret_sha256="", expires_at_ms=NOW - 1),
        KeyRecord(id="revoked", secret_sha256="", revoked=True),
        KeyRecord(id="expired", secret_sha256="", expires_at_ms=NOW),
    ]
    book = shard(tenant(budget(10**6), keys=keys))

    def answer(number: int, key_id: str, **fields) -> str:
        return book.ask(ask(number, key_id=key_id, **fields), NOW)[0].code

    for number, key_id in enumerate(("lives", "rotated", "twice", "", "jwt-0123456789abcdef")):
        assert answer(number, key_id, waited=True) == "", key_id
    for number, key_id in enumerate(("revoked", "expired", "unknown"), start=10):
        assert answer(number, key_id, waited=True) == "revoked_api_key", key_id
        assert answer(number + 10, key_id) == "", "at the door the gateway has looked at it"
    held = book.standings("acme", NOW)[0].held_picos
    assert held == 8 * 10, "a refused one holds nothing"


def test_a_task_that_waits_for_people_keeps_its_hold_and_takes_no_place_of_one_that_runs():
    record = tenant(budget(25), limits=RateLimits(concurrency=1))
    book = shard(record)
    assert book.ask(ask(0), NOW)[0].code == ""
    assert book.ask(ask(1), NOW)[0].code == "rate_limited"
    renewed = book.paused("t0", "acme", NOW + 5 * HOUR, NOW, 7)
    assert renewed is not None
    assert renewed.expires_at_ms == NOW + 5 * HOUR
    # Told again, from the stream or late, it changes nothing.
    assert book.paused("t0", "acme", NOW + 9 * HOUR, NOW, 7) is None
    assert book.ask(ask(1, expires_at_ms=NOW + 9 * HOUR), NOW)[0].code == ""
    assert book.expire(NOW + 2 * HOUR) == []
    (standing,) = book.standings("acme", NOW + 2 * HOUR)
    assert standing.held_picos == 20
    # Another owner knows it from the journal: the hold, and that it was renewed.
    other = shard(record)
    placed = HoldPlaced(task="t0", tenant="acme", picos=10, expires_at_ms=NOW + HOUR, budgets=["b"], at_ms=NOW)
    other.apply(HoldsJournaled(shard=0, at_ms=NOW, events_sequence=1, placed=[placed]), NOW)
    other.apply(HoldsJournaled(shard=0, at_ms=NOW, events_sequence=7, placed=[renewed]), NOW)
    assert other.expire(NOW + 2 * HOUR) == []
    assert [hold.expires_at_ms for hold in other.holds("acme")] == [NOW + 5 * HOUR]
    assert other.expire(NOW + 6 * HOUR) == ["t0"]
    # The end gives it back and captures, however long it was in coming.
    assert settle(book, 0, 4, 8, NOW + 4 * HOUR) is not None
    assert "t0" not in {hold.task for hold in book.holds("acme")}


def test_a_task_that_another_owner_counted_takes_no_running_ones_place_with_its_end():
    record = tenant(budget(100), limits=RateLimits(concurrency=1))
    for ends in ("settled", "expired"):
        book = shard(record)
        placed = [HoldPlaced(task="t0", tenant="acme", picos=10, expires_at_ms=NOW + 1, budgets=["b"], at_ms=NOW)]
        book.apply(HoldsJournaled(shard=0, at_ms=NOW, events_sequence=1, placed=placed), NOW)
        assert book.ask(ask(1), NOW)[0].code == ""
        if ends == "settled":
            assert settle(book, 0, 4, 2) is not None
        else:
            assert book.expire(NOW + 2) == ["t0"]
        assert book.ask(ask(2), NOW)[0].code == "rate_limited"


def test_a_pause_of_a_task_that_nobody_holds_is_nothing():
    book = shard(tenant(budget(25)))
    assert book.paused("t9", "acme", NOW + HOUR, NOW, 1) is None
