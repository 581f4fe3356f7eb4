"""Money is exact."""

from decimal import Decimal

from collegium_contracts.money import Price, Usage, add_usage, cost_usd_picos, picos_to_usd
from hypothesis import given
from hypothesis import strategies as st

COUNT = st.integers(0, 10**9)
PICOS = st.integers(0, 10**9)


@given(COUNT, COUNT, PICOS, PICOS)
def test_a_plain_call_costs_tokens_times_price(inputs, outputs, price_in, price_out):
    usage = Usage(input_tokens=inputs, output_tokens=outputs)
    assert cost_usd_picos(Price(price_in, price_out), usage) == inputs * price_in + outputs * price_out


@given(COUNT, COUNT, COUNT, COUNT)
def test_classes_without_a_price_cost_as_the_class_above(inputs, cached, outputs, reasoning):
    price = Price(input_picos=7, output_picos=11)
    usage = Usage(inputs, outputs, min(cached, inputs), min(reasoning, outputs))
    assert cost_usd_picos(price, usage) == inputs * 7 + outputs * 11


def test_each_class_has_its_own_price():
    price = Price(10, 20, cached_input_picos=1, reasoning_picos=30, call_picos=5)
    assert cost_usd_picos(price, Usage(100, 50, 40, 10)) == 60 * 10 + 40 * 1 + 40 * 20 + 10 * 30 + 5


@given(st.lists(st.builds(Usage, COUNT, COUNT, COUNT, COUNT, st.booleans(), PICOS, PICOS), min_size=1))
def test_a_sum_is_the_sum_of_its_parts(parts):
    total = Usage()
    for part in parts:
        total = add_usage(total, part)
    assert total.input_tokens == sum(part.input_tokens for part in parts)
    assert total.charge_usd_picos == sum(part.charge_usd_picos for part in parts)
    assert total.estimated == any(part.estimated for part in parts)


@given(st.integers(-(10**20), 10**20))
def test_dollars_are_written_exactly(picos):
    text = picos_to_usd(picos)
    assert Decimal(text) * 10**12 == picos
    assert "E" not in text
