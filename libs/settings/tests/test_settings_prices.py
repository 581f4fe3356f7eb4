"""Where a model's price comes from: the configuration, its provider's publication, or nowhere, which is refused."""

from pathlib import Path

import pytest
from collegium_contracts.money import Price
from collegium_settings import ModelSettings, PriceSettings, SettingsError
from collegium_settings.errors import UnpricedModelError
from collegium_settings.load import load
from collegium_settings.public_prices import public_price

OPENAI = "https://api.openai.com/v1"


def test_a_configured_price_wins_and_zero_is_one():
    assert ModelSettings(name="gpt-4o", base_url=OPENAI, price=PriceSettings()).price_picos() == Price()


def test_a_provider_at_its_own_address_has_its_published_price():
    found = ModelSettings(name="ours", upstream_model="gpt-4o", base_url=OPENAI).price_picos()
    assert found.input_picos > 0
    assert found.output_picos > found.input_picos
    assert found.cached_input_picos is not None
    assert found.cached_input_picos < found.input_picos


@pytest.mark.parametrize(("url", "name"), [("http://127.0.0.1:8000/v1", "gpt-4o"), (OPENAI, "no-such-model")])
def test_what_nobody_publishes_is_no_price(url: str, name: str):
    with pytest.raises(UnpricedModelError, match=name):
        ModelSettings(name=name, base_url=url).price_picos()


def test_a_price_that_depends_on_length_holds_for_short_contexts_only():
    anthropic = "https://api.anthropic.com/v1"
    assert public_price(anthropic, "claude-sonnet-4-5", 100_000) is not None
    assert public_price(anthropic, "claude-sonnet-4-5", 1_000_000) is None


def test_a_configuration_with_an_unpriced_model_is_refused_with_its_place(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("models: [{name: local, base_url: 'http://127.0.0.1:8000/v1'}]\n")
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    assert [problem.path for problem in caught.value.problems] == ["models[0].price"]
