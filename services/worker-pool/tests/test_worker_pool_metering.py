"""Usage and money of one call."""

import msgspec
import pytest
from collegium_contracts.money import Price, Usage
from collegium_worker_pool.upstream.metering import UpstreamUsage, estimate, meter
from hypothesis import given
from hypothesis import strategies as st

counts = st.integers(0, 10**7)
picos = st.integers(0, 10**9)


def reported(**fields) -> UpstreamUsage:
    return msgspec.convert(fields, UpstreamUsage)


def test_the_endpoints_count_is_taken_as_it_is(attempt):
    usage = meter(attempt(), reported(prompt_tokens=100, completion_tokens=7))
    assert usage == Usage(100, 7, cost_usd_picos=100 * 10 + 7 * 20, charge_usd_picos=100 * 30 + 7 * 40)
    assert usage.estimated is False


def test_an_estimate_is_marked_and_priced_alike(attempt):
    usage = estimate(attempt(), 11, 2, bound=9, pieces=0)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (11, 2, True)
    assert (usage.cost_usd_picos, usage.charge_usd_picos) == (11 * 10 + 2 * 20, 11 * 30 + 2 * 40)
    assert estimate(attempt(), 0, 0, bound=9, pieces=0) == Usage(estimated=True)


@pytest.mark.parametrize(("counted", "pieces", "tokens"), [(5, 3, 5), (12, 3, 9), (2, 4, 4), (20, 11, 11)])
def test_an_estimate_stays_within_the_bound_unless_more_pieces_came(attempt, counted, pieces, tokens):
    assert estimate(attempt(), 1, counted, bound=9, pieces=pieces).output_tokens == tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}},
        {"prompt_tokens_details": {"cached_tokens": 60, "cache_creation_tokens": 30}},
        {"prompt_tokens_details": {"cached_tokens": 60}, "cache_creation_input_tokens": 30},
    ],
)
def test_what_is_written_to_the_endpoints_cache_is_a_class_of_its_own(attempt, fields):
    price = Price(input_picos=10, cached_input_picos=1, cache_write_picos=13)
    usage = meter(attempt(price=price), reported(prompt_tokens=100, completion_tokens=1, **fields))
    assert (usage.cached_input_tokens, usage.cache_write_tokens) == (60, 30)
    assert usage.cost_usd_picos == 10 * 10 + 60 * 1 + 30 * 13
    unpriced = meter(attempt(price=Price(input_picos=10)), reported(prompt_tokens=100, **fields))
    assert unpriced.cost_usd_picos == 100 * 10, "without a price of its own it is input"


def test_cached_and_reasoning_tokens_have_prices_of_their_own(attempt):
    price = Price(input_picos=10, output_picos=20, cached_input_picos=1, reasoning_picos=50, call_picos=1000)
    usage = meter(
        attempt(price=price, charge=Price()),
        reported(
            prompt_tokens=100,
            completion_tokens=10,
            prompt_tokens_details={"cached_tokens": 60},
            completion_tokens_details={"reasoning_tokens": 4},
        ),
    )
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (60, 4)
    assert usage.cost_usd_picos == 40 * 10 + 60 * 1 + 6 * 20 + 4 * 50 + 1000
    assert usage.charge_usd_picos == 0


def test_details_may_be_null_or_absent(attempt):
    usage = meter(
        attempt(),
        reported(prompt_tokens=3, completion_tokens=2, prompt_tokens_details={"cached_tokens": None}),
    )
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (0, 0)


def test_counts_below_zero_earn_nobody_anything(attempt):
    assert meter(attempt(), reported(prompt_tokens=-5, completion_tokens=-6)) == Usage()


@given(prompt=counts, completion=counts, cached=counts, reasoning=counts, price=picos, charge=picos)
def test_money_is_whole_and_never_below_zero(attempt, prompt, completion, cached, reasoning, price, charge):
    usage = meter(
        attempt(
            price=Price(price, price, cached_input_picos=0, reasoning_picos=price),
            charge=Price(charge, charge),
        ),
        reported(
            prompt_tokens=prompt,
            completion_tokens=completion,
            prompt_tokens_details={"cached_tokens": cached},
            completion_tokens_details={"reasoning_tokens": reasoning},
        ),
    )
    assert usage.cost_usd_picos == (max(0, prompt - cached) + completion) * price
    assert usage.charge_usd_picos == (prompt + completion) * charge
