"""Money laws of the configuration: exact both ways, never rounded, never a float."""

from decimal import Decimal

import pytest
from collegium_contracts.money import Usage, cost_usd_picos
from collegium_settings import PriceSettings
from collegium_settings.models import MarkupSettings, ModelSettings
from collegium_settings.money import parse_usd, picos_per_token, picos_to_usd, scale_picos, usd_to_picos
from hypothesis import given
from hypothesis import strategies as st

picos = st.integers(min_value=-(10**30), max_value=10**30)
prices = st.decimals(min_value=0, max_value=10**6, places=6, allow_nan=False, allow_infinity=False)


@given(picos)
def test_what_is_written_reads_back_as_it_was(amount: int) -> None:
    text = picos_to_usd(amount)
    assert usd_to_picos(text) == amount
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith("0")


@given(prices)
def test_a_price_per_million_is_a_whole_number_of_picos_per_token(usd: Decimal) -> None:
    assert picos_per_token(usd) == usd * 10**6
    assert parse_usd(f"{usd:f}") == usd


@given(prices, prices, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cost_equals_the_exact_sum_in_dollars(
    per_input: Decimal, per_output: Decimal, tokens_in: int, tokens_out: int
) -> None:
    price = PriceSettings(input_usd_per_mtok=per_input, output_usd_per_mtok=per_output).price()
    cost = cost_usd_picos(price, Usage(input_tokens=tokens_in, output_tokens=tokens_out))
    assert cost == (per_input * tokens_in + per_output * tokens_out) * 10**6


@given(st.integers(0, 10**12), st.decimals(min_value=0, max_value=100, places=4))
def test_a_markup_is_off_by_half_a_pico_at_most(amount: int, markup: Decimal) -> None:
    assert abs(Decimal(scale_picos(amount, markup)) - amount * markup) <= Decimal("0.5")


@pytest.mark.parametrize("text", ["", "-1", "1e3", " 1", "1,5", "0.0000001", "1.", ".5", "٣", "nan", "1" * 13])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_usd(text)


@pytest.mark.parametrize("text", ["", "1e3", " 1", "+1", "0.0000000000001", "inf"])
def test_what_is_no_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no decimal number"):
        usd_to_picos(text)


def test_a_trimmed_amount_keeps_every_digit() -> None:
    assert picos_to_usd(123_400_000) == "0.0001234"
    assert picos_to_usd(10**12) == "1"


def test_a_charge_is_the_price_its_multiple_or_its_own() -> None:
    price = PriceSettings(input_usd_per_mtok=Decimal("0.02"), call_usd=Decimal("0.000001"))
    model = ModelSettings(name="m", base_url="http://m", price=price)
    assert model.charge_picos() == model.price_picos() == price.price()
    marked = ModelSettings(name="m", base_url="http://m", price=price, charge=MarkupSettings(markup=Decimal("1.25")))
    assert marked.charge_picos().input_picos == 25_000
    assert marked.charge_picos().call_picos == 1_250_000
    own = ModelSettings(name="m", base_url="http://m", price=price, charge=PriceSettings())
    assert own.charge_picos().input_picos == 0
