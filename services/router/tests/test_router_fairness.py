"""Who is next: shares by weight, priorities that never starve, lines that do not hold each other up."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from collegium_router.queue.fairness import AGEING_MS, Entry, FairQueue
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000
LATER_MS = NOW_MS + 3_600_000


def entry(key: str, tenant: str = "a", **fields) -> Entry:
    return Entry(key, tenant, key, **{"arrived_ms": NOW_MS, "deadline_ms": LATER_MS, **fields})


def queue_of(*entries: Entry) -> FairQueue[bool]:
    queue: FairQueue[bool] = FairQueue()
    for one in entries:
        assert queue.push(one, NOW_MS)
    return queue


def everything(queue: FairQueue[bool], now_ms: int = NOW_MS) -> list[str]:
    """The keys in the order in which they go."""
    keys: list[str] = []
    while (taken := queue.take(now_ms, lambda _entry: True)) is not None:
        keys.append(taken[0].key)
    return keys


def test_tenants_share_by_weight_while_all_have_something():
    weights = {"small": 1, "middle": 4, "large": 16}
    queue = queue_of(
        *(entry(f"{name}{n}", name, weight=weight) for name, weight in weights.items() for n in range(400))
    )
    served = Counter[str]()
    for _ in range(21 * 20):
        taken = queue.take(NOW_MS, lambda _entry: True)
        assert taken is not None
        served[taken[0].tenant] += 1
    assert all(abs(served[name] - 20 * weight) <= 1 for name, weight in weights.items()), served


def test_shares_are_interleaved_and_not_taken_in_turns_of_many():
    queue = queue_of(*(entry(f"{name}{n}", name, weight=4) for name in ("one", "two") for n in range(20)))
    order = everything(queue)
    assert all({first[:3], second[:3]} == {"one", "two"} for first, second in zip(order[::2], order[1::2], strict=True))


def test_who_comes_back_after_a_pause_goes_first_and_who_comes_back_at_once_does_not():
    queue = queue_of(*(entry(f"flood{n}", "loud", weight=16) for n in range(100)))
    for _ in range(20):
        queue.take(NOW_MS, lambda _entry: True)
    queue.push(entry("first", "quiet"), NOW_MS)
    taken = [queue.take(NOW_MS, lambda _entry: True)[0].key for _ in range(2)]
    assert "first" in taken
    queue.push(entry("again", "quiet"), NOW_MS)
    later = [queue.take(NOW_MS, lambda _entry: True)[0].key for _ in range(18)]
    assert "again" not in later[:13], "its share is a sixteenth of the other's"
    assert "again" in later


def test_who_was_kept_back_remembers_one_turn_at_most():
    queue = queue_of(*(entry(f"a{n}", "a") for n in range(50)), *(entry(f"b{n}", "b") for n in range(50)))
    for _ in range(20):
        queue.take(NOW_MS, lambda one: True if one.tenant == "a" else None)
    after = [queue.take(NOW_MS, lambda _entry: True)[0].tenant for _ in range(10)]
    assert 5 <= after.count("b") <= 7, after


def test_what_a_tenant_does_not_use_is_lent_out():
    queue = queue_of(entry("x", "large", weight=16), *(entry(f"s{n}", "small") for n in range(50)))
    assert sorted(everything(queue)) == sorted(["x", *(f"s{n}" for n in range(50))])


def test_a_flood_of_one_tenant_delays_another_by_one_turn_at_most():
    queue = queue_of(*(entry(f"flood{n}", "loud", weight=4) for n in range(1_000)))
    assert queue.push(entry("quiet", "quiet", weight=4), NOW_MS)
    assert everything(queue).index("quiet") <= 1


def test_one_tenants_entries_go_in_the_order_they_came():
    queue = queue_of(*(entry(f"{n}", arrived_ms=NOW_MS + n) for n in range(20)))
    assert everything(queue) == [str(n) for n in range(20)]


def test_priorities_share_by_weight_and_low_is_never_starved():
    entries = [entry(f"{priority}{n}", priority=priority) for priority in ("high", "normal", "low") for n in range(100)]
    first = everything(queue_of(*entries))[:42]
    counts = Counter(key.rstrip("0123456789") for key in first)
    assert counts["high"] == pytest.approx(32, abs=2)
    assert counts["normal"] == pytest.approx(8, abs=2)
    assert counts["low"] == pytest.approx(2, abs=1)


def test_what_waited_long_moves_ahead_of_its_priority():
    """Low entries that have waited sixteen ages have a rate like fresh high ones."""
    now = NOW_MS + 16 * AGEING_MS
    old = [entry(f"low{n}", priority="low") for n in range(50)]
    fresh = [entry(f"high{n}", priority="high", arrived_ms=now) for n in range(50)]
    first = everything(queue_of(*old, *fresh), now)[:40]
    assert sum(key.startswith("low") for key in first) == pytest.approx(20, abs=2)


def test_a_busy_route_holds_up_its_own_line_only():
    queue = queue_of(entry("blocked", route=("busy", "")), entry("free", route=("idle", "")))
    taken = queue.take(NOW_MS, lambda one: True if one.route == ("idle", "") else None)
    assert taken is not None
    assert taken[0].key == "free"
    assert len(queue) == 1


def test_nothing_goes_where_the_judge_lets_nothing_go():
    queue = queue_of(*(entry(f"{n}", f"t{n % 5}") for n in range(20)))
    assert queue.take(NOW_MS, lambda _entry: None) is None
    assert len(queue) == 20


def test_a_held_entry_waits_for_its_time_and_keeps_its_key():
    queue = queue_of(entry("later", not_before_ms=NOW_MS + 100), entry("now"))
    assert everything(queue) == ["now"]
    assert queue.standing("later", NOW_MS) == (0, NOW_MS + 100)
    assert not queue.push(entry("later"), NOW_MS), "the same key twice is one entry"
    assert everything(queue, NOW_MS + 100) == ["later"]


def test_removed_and_expired_entries_never_go():
    queue = queue_of(entry("gone"), entry("dying", deadline_ms=NOW_MS + 5), entry("stays"))
    assert queue.remove("gone") is not None
    assert queue.remove("gone") is None
    assert [one.key for one in queue.expired(NOW_MS + 500)] == ["dying"]
    assert queue.expired(NOW_MS + 1_000) == []
    assert everything(queue) == ["stays"]
    assert queue.ready_of("a") == 0


def test_a_position_is_what_would_go_before():
    queue = queue_of(*(entry(f"a{n}", "a") for n in range(5)), *(entry(f"b{n}", "b", weight=2) for n in range(9)))
    positions = {key: queue.standing(key, NOW_MS).position for key in ("a0", "a4", "b0", "b8")}
    order = {key: index + 1 for index, key in enumerate(everything(queue))}
    for key, position in positions.items():
        assert abs(position - order[key]) <= 2, (key, positions, order)
    assert queue.standing("a0", NOW_MS) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from(["high", "normal", "low"]), st.integers(0, 3), st.booleans()
        ),
        max_size=60,
    ),
    st.integers(0, 2**32),
)
def test_whatever_is_pushed_goes_exactly_once_or_is_removed(pushed, seed):
    chance = random.Random(seed)
    queue: FairQueue[bool] = FairQueue()
    for index, (tenant, priority, route, held) in enumerate(pushed):
        queue.push(
            entry(
                f"{index}",
                tenant,
                priority=priority,
                route=(f"r{route}", ""),
                weight=ord(tenant) - 96,
                not_before_ms=NOW_MS + 50 if held else 0,
            ),
            NOW_MS,
        )
    gone = {key for key in map(str, range(len(pushed))) if chance.random() < 0.3}
    for key in gone:
        assert queue.remove(key) is not None
    went = everything(queue) + everything(queue, NOW_MS + 60)
    assert sorted(went) == sorted(set(map(str, range(len(pushed)))) - gone)
    assert (len(queue), dict(queue.ready_by_route())) == (0, {})


def test_what_went_leaves_nothing_behind_until_its_deadline():
    queue = queue_of(*(entry(f"e{n}", deadline_ms=NOW_MS + 1000 * n) for n in range(1, 100)))
    assert len(everything(queue)) == 99
    assert not queue._deadlines
    queue.push(entry("again", deadline_ms=NOW_MS + 5_000), NOW_MS)
    assert [one.key for one in queue.expired(NOW_MS + 200_000)] == ["again"]
    assert (queue._steps, queue._stepped) == ([], set())
