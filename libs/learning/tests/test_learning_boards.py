"""Scoreboard arithmetic: the past fades, and a change is told from chance."""

from __future__ import annotations

import random

import pytest
from collegium_learning.ranks import drift
from collegium_learning.ranks.decay import Window, decayed, in_order
from hypothesis import given
from hypothesis import strategies as st

DAY_MS = 86_400_000


def windows(shares: list[float], each: int = 20) -> list[drift.Part]:
    return [drift.Part(each, each * share, each * share) for share in shares]


def test_after_a_half_life_the_past_counts_half() -> None:
    old = Window(at_ms=0, calls=10, succeeded=0, judged=10, score_sum=0.0, duration_ms_total=1_000)
    new = Window(at_ms=7 * DAY_MS, calls=10, succeeded=10, judged=10, score_sum=10.0, duration_ms_total=4_000)
    found = decayed([old, new], 7 * DAY_MS, 7 * DAY_MS)
    assert found.calls == 15
    assert found.quality == pytest.approx(2 / 3)
    assert found.duration_ms == pytest.approx(300)
    assert decayed([], 0, DAY_MS).quality is None
    assert in_order([new, old]) == [old, new]


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 50), st.floats(0, 1)), max_size=12))
def test_decayed_means_lie_between_what_was_seen_in_any_order(rows: list[tuple[int, int, float]]) -> None:
    made = [Window(at_ms=at, judged=count, score_sum=count * score) for at, count, score in rows]
    found = decayed(made, 10**12, DAY_MS)
    again = decayed(reversed(made), 10**12, DAY_MS)
    assert found.quality == pytest.approx(again.quality)
    scores = [score for _, count, score in rows if count]
    if found.quality is not None:
        assert min(scores) - 1e-9 <= found.quality <= max(scores) + 1e-9


def test_a_fall_is_found_with_both_means() -> None:
    found = drift.find(windows([0.9] * 30 + [0.5] * 10))
    assert found is not None
    assert (found.at, found.before_count, found.after_count) == (30, 600, 200)
    assert (found.before, found.after) == pytest.approx((0.9, 0.5))
    assert drift.find(windows([0.9], each=10)) is None


def test_chance_is_seldom_taken_for_a_change(rng: random.Random) -> None:
    alarms = 0
    for _ in range(200):
        shares = [sum(rng.random() < 0.8 for _ in range(20)) / 20 for _ in range(40)]
        alarms += drift.find(windows(shares)) is not None
    assert alarms <= 4
