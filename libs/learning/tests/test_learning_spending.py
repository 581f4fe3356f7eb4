"""Spending: a debt moves the price of quality, time pays it back, and no more than a bound is given away."""

from __future__ import annotations

import pytest
from collegium_contracts.policies import Cell, RoutingPolicy
from collegium_learning.routing.choosing import Candidate, Draw, Wants, decide
from collegium_learning.routing.predicting import Predictor
from collegium_learning.routing.spending import PRESSURE_MAX, Spending, Target

DAY_MS = 86_400_000
TARGET = Target(1_000_000, DAY_MS)


def test_within_its_target_nobody_is_pressed():
    spending = Spending({"acme": TARGET})
    for hour in range(48):
        spending.spent("acme", 1_000_000 // 24, hour * DAY_MS // 24)
    assert spending.pressure("acme", 2 * DAY_MS) == 0.0
    assert spending.pressure("globex", 2 * DAY_MS) == 0.0


def test_what_is_over_presses_until_time_has_paid_it_back():
    spending = Spending({"acme": TARGET})
    spending.spent("acme", 100_000, 0)
    assert spending.pressure("acme", 0) == pytest.approx(2.0)
    assert spending.pressure("acme", DAY_MS // 20) == pytest.approx(1.0)
    assert spending.pressure("acme", DAY_MS // 10) == 0.0
    spending.spent("acme", 10**12, 0)
    assert spending.pressure("acme", 0) == PRESSURE_MAX
    assert spending.pressure("acme", DAY_MS) == 0.0


def test_a_clock_that_goes_back_pays_nothing():
    spending = Spending({"acme": TARGET})
    spending.spent("acme", 100_000, DAY_MS)
    assert spending.pressure("acme", 0) == pytest.approx(2.0)


def test_another_target_begins_anew_and_the_same_one_does_not():
    spending = Spending({"acme": TARGET, "globex": TARGET})
    for name in ("acme", "globex"):
        spending.spent(name, 100_000, 0)
    spending.keep({"acme": TARGET, "globex": Target(5, DAY_MS)})
    assert spending.pressure("acme", 0) == pytest.approx(2.0)
    assert spending.pressure("globex", 0) == 0.0


def test_under_pressure_a_cheaper_one_answers_and_no_worse_a_one_than_the_bound():
    candidates = [Candidate("cheap", "student", 1.0), Candidate("dear", "teacher", 10.0)]

    def chosen(worse: float, pressure: float, quality: float | None = None):
        cells = [Cell(100, 0.9 - worse, 0.001), Cell(100, 0.9, 0.001)]
        policy = RoutingPolicy(
            version=1, tenant="acme", created_at_ms=0, models=["cheap", "dear"], everywhere=cells, tolerance=0.04
        )
        predictor = Predictor(policy)
        wants = Wants(quality=quality, pressure=pressure)
        return decide(predictor, predictor.expect("", None), candidates, wants, Draw(1.0, 0.0))

    assert chosen(0.1, 0.0).order[0] == "dear"
    pressed = chosen(0.1, 2.0)
    assert (pressed.order[0], pressed.reasons) == ("cheap", ("spending", "good_enough"))
    assert chosen(0.3, PRESSURE_MAX).order[0] == "dear"
    assert "spending" not in chosen(0.01, 2.0).reasons
    # A wanted quality is no matter of price.
    assert chosen(0.1, PRESSURE_MAX, quality=0.85).order[0] == "dear"


def test_spending_comes_down_to_its_target_where_a_cheaper_model_allows():
    spending = Spending({"acme": TARGET})
    dear, cheap, spent, quality = 4_000, 200, 0, 0.0
    for task in range(1_000):
        now_ms = task * DAY_MS // 500
        price = cheap if spending.pressure("acme", now_ms) > 1.5 else dear
        spending.spent("acme", price, now_ms)
        spent += price
        quality += price == dear
    # Two days at a target of one million each; always the dear one would be four.
    assert spent == pytest.approx(2_000_000, rel=0.06)
    assert quality > 0
