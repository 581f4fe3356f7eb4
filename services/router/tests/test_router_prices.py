"""Versions of prices: given once, never to other prices, and kept until somebody says something else."""

from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.money import Price
from collegium_contracts.priceversions import in_force
from collegium_contracts.state import ModelRecord, PricePair, Roster
from collegium_contracts.worstcase import worst_picos
from collegium_router.choosing.plan import attempt_of
from collegium_router.limits.permits import Permits
from collegium_router.limits.resources import Resources
from collegium_router.roster.prices import (
    AHEAD_MS_MAX,
    UPCOMING_MAX,
    WITHDRAWN_AHEAD_MS,
    PriceTimeError,
    repriced,
    schedule_prices,
    set_prices,
    withdraw_prices,
)
from hypothesis import given
from hypothesis import strategies as st

Model = Callable[..., ModelRecord]
DEAR = PricePair(price=Price(input_picos=70), charge=Price(input_picos=90))


def test_a_new_model_has_a_version_and_a_restart_keeps_it(model: Model):
    first = repriced(None, model("a"), 1_000)
    assert first.price_version == 1_000
    assert repriced(first, model("a"), 2_000) == first


def test_changed_prices_of_the_configuration_are_a_newer_version_even_of_a_clock_that_stands_behind(model: Model):
    first = repriced(None, model("a"), 1_000)
    changed = repriced(first, model("a", price=Price(input_picos=8)), 400)
    assert changed.price == Price(input_picos=8)
    assert changed.price_version == 1_001


def test_what_an_operator_set_stands_until_the_configuration_says_something_else(model: Model):
    first = repriced(None, model("a"), 1_000)
    dear = set_prices(first, DEAR, 2_000)
    assert (dear.price, dear.charge, dear.price_version) == (DEAR.price, DEAR.charge, 2_000)
    assert repriced(dear, model("a"), 3_000) == dear
    other = repriced(dear, model("a", price=Price(input_picos=8)), 3_000)
    assert (other.price, other.price_version, other.configured) == (Price(input_picos=8), 3_000, None)


def test_setting_the_same_prices_again_changes_nothing(model: Model):
    dear = set_prices(model("a"), DEAR, 2_000)
    assert set_prices(dear, DEAR, 3_000) is dear


def test_an_attempt_is_pinned_to_the_version(model: Model):
    assert attempt_of(model("a", price_version=77), 1, 1, "single").price_version == 77


def test_a_scheduled_version_begins_at_its_time_and_ends_where_the_next_begins(model: Model):
    standing = schedule_prices(model("a"), DEAR, 2_000, 1_000)
    cheap = PricePair(price=Price(), charge=Price())
    standing = schedule_prices(standing, cheap, 3_000, 1_000)
    assert (standing.price, standing.price_version) == (model("a").price, 1)
    prices = [(at, in_force(standing, at).price_version) for at in (1_999, 2_000, 2_999, 3_000, 9_000)]
    assert prices == [(1_999, 1), (2_000, 2_000), (2_999, 2_000), (3_000, 3_000), (9_000, 3_000)]
    assert in_force(standing, 2_500).price == DEAR.price
    assert repriced(standing, model("a"), 1_500) == standing
    assert in_force(repriced(standing, model("a", price=Price(input_picos=8)), 1_500), 2_000).price == DEAR.price


@pytest.mark.parametrize(
    ("from_ms", "code"),
    [
        (900, "price_overlap"),
        (1_000, "price_overlap"),
        (1_500, "price_overlap"),
        (2_000, "price_overlap"),
        (1_001 + AHEAD_MS_MAX, "invalid_price"),
    ],
)
def test_a_version_that_is_backdated_overlaps_or_lies_too_far_away_is_refused(model: Model, from_ms: int, code: str):
    standing = schedule_prices(model("a"), DEAR, 2_000, 1_000)
    assert schedule_prices(standing, DEAR, 2_000, 1_000) is standing
    with pytest.raises(PriceTimeError) as refused:
        schedule_prices(standing, PricePair(price=Price(), charge=Price()), from_ms, 1_000)
    assert refused.value.code == code


def test_only_so_many_versions_wait(model: Model):
    standing = model("a")
    for number in range(UPCOMING_MAX):
        standing = schedule_prices(standing, DEAR, 2_000 + number, 1_000)
    with pytest.raises(PriceTimeError):
        schedule_prices(standing, DEAR, 9_000, 1_000)


def test_an_attempt_has_the_version_of_its_dispatch_without_a_new_roster(model: Model):
    now = [1_500]
    resources = Resources(Permits(), lambda _: 1, lambda: now[0])
    scheduled = schedule_prices(model("a"), DEAR, 2_000, 1_000)
    assert resources.use_roster(codec.encode(Roster(version=1, models=[scheduled])))
    pinned: list[tuple[int, Price]] = []
    for now[0] in (1_500, 1_999, 2_000):
        resources.turn_prices(now[0])
        attempt = attempt_of(resources.models["a"], 1, 1, "single")
        pinned.append((attempt.price_version, attempt.price))
    assert pinned == [(1, model("a").price), (1, model("a").price), (2_000, DEAR.price)]


def test_a_hold_covers_the_dearest_version_until_the_deadline(model: Model, submission: Callable[..., TaskSubmitted]):
    scheduled = schedule_prices(model("sim"), DEAR, 5_000, 1_000)
    now = worst_picos(submission("sim", deadline_ms=4_999), [scheduled])
    assert now == worst_picos(submission("sim", deadline_ms=4_999), [model("sim")])
    assert worst_picos(submission("sim", deadline_ms=5_000), [scheduled]) == worst_picos(
        submission("sim", deadline_ms=5_000), [model("sim", charge=Price(input_picos=90))]
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 50), st.integers(0, 60)), max_size=30))
def test_no_version_ever_names_two_prices(steps: list[tuple[int, int, int, int]]):
    base = ModelRecord(
        name="a", rank="student", pool="p", price=Price(), charge=Price(), max_output_tokens=1, context_tokens=1
    )
    standing = repriced(None, base, 1)
    seen = {standing.price_version: (standing.price, standing.charge)}
    for kind, picos, now_ms, from_ms in steps:
        price = Price(input_picos=picos)
        wanted = PricePair(price=price, charge=price)
        if kind == 0:
            standing = repriced(standing, msgspec.structs.replace(base, price=price, charge=price), now_ms)
        elif kind == 1:
            standing = set_prices(standing, wanted, now_ms)
        else:
            with suppress(PriceTimeError):
                standing = schedule_prices(standing, wanted, from_ms, now_ms)
        starts = [standing.price_version, *(one.version for one in standing.upcoming)]
        assert starts == sorted(set(starts))
        named = [(standing.price_version, standing.price, standing.charge)]
        named += [(one.version, one.prices.price, one.prices.charge) for one in standing.upcoming]
        for version, cost, charge in named:
            assert seen.setdefault(version, (cost, charge)) == (cost, charge)


def test_a_scheduled_version_is_taken_back_until_a_moment_before_it_begins(model: Model):
    begins = 2_000 + WITHDRAWN_AHEAD_MS
    first = schedule_prices(model("a"), DEAR, begins, 1_000)
    both = schedule_prices(first, PricePair(price=Price(), charge=Price()), begins + 1_000, 1_000)
    assert withdraw_prices(both, begins + 1_000, 1_000) == first
    assert withdraw_prices(both, begins, 2_000).upcoming == both.upcoming[1:]
    for version, now_ms, code in (
        (begins, 2_001, "price_overlap"),
        (begins, begins, "price_overlap"),
        (begins + 1, 1_000, "not_found"),
        (0, 1_000, "not_found"),
    ):
        with pytest.raises(PriceTimeError) as raised:
            withdraw_prices(both, version, now_ms)
        assert raised.value.code == code
