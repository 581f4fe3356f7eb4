"""Versions of prices: given once, never to other prices, and kept until somebody says something else."""

from collections.abc import Callable

import msgspec
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, PricePair
from collegium_router.plan import attempt_of
from collegium_router.prices import repriced, set_prices
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


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 50)), max_size=30))
def test_no_version_ever_names_two_prices(steps: list[tuple[bool, int, int]]):
    base = ModelRecord(
        name="a", rank="student", pool="p", price=Price(), charge=Price(), max_output_tokens=1, context_tokens=1
    )
    standing = repriced(None, base, 1)
    seen = {standing.price_version: (standing.price, standing.charge)}
    for is_configured, picos, now_ms in steps:
        price = Price(input_picos=picos)
        if is_configured:
            standing = repriced(standing, msgspec.structs.replace(base, price=price, charge=price), now_ms)
        else:
            standing = set_prices(standing, PricePair(price=price, charge=price), now_ms)
        assert seen.setdefault(standing.price_version, (standing.price, standing.charge)) == (
            standing.price,
            standing.charge,
        )
