"""Usage and money of one call."""

import msgspec
from collegium_contracts.money import Price, Usage
from collegium_worker_pool.metering import UpstreamUsage, meter
from hypothesis import given
from hypothesis import strategies as st

counts = st.integers(0, 10**7)
picos = st.integers(0, 10**9)


def reported(**fields) -> UpstreamUsage:
    return msgspec.convert(fields, UpstreamUsage)


def test_the_endpoints_count_is_taken_as_it_is(attempt):
    usage = meter(attempt(), reported(prompt_tokens=100, completion_tokens=7), 9999, 9999)
    assert usage == Usage(100, 7, cost_usd_picos=100 * 10 + 7 * 20, charge_usd_picos=100 * 30 + 7 * 40)
    assert usage.estimated is False


def test_without_a_count_a_token_is_four_bytes_and_the_usage_is_marked(attempt):
    usage = meter(attempt(), None, 41, 8)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (11, 2, True)
    assert (usage.cost_usd_picos, usage.charge_usd_picos) == (11 * 10 + 2 * 20, 11 * 30 + 2 * 40)
    assert meter(attempt(), None, 0, 0) == Usage(estimated=True)


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
        0,
        0,
    )
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (60, 4)
    assert usage.cost_usd_picos == 40 * 10 + 60 * 1 + 6 * 20 + 4 * 50 + 1000
    assert usage.charge_usd_picos == 0


def test_details_may_be_null_or_absent(attempt):
    usage = meter(
        attempt(),
        reported(prompt_tokens=3, completion_tokens=2, prompt_tokens_details={"cached_tokens": None}),
        0,
        0,
    )
    assert (usage.cached_input_tokens, usage.reasoning_tokens) == (0, 0)


def test_counts_below_zero_earn_nobody_anything(attempt):
    assert meter(attempt(), reported(prompt_tokens=-5, completion_tokens=-6), 0, 0) == Usage()


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
        0,
        0,
    )
    assert usage.cost_usd_picos == (max(0, prompt - cached) + completion) * price
    assert usage.charge_usd_picos == (prompt + completion) * charge
