"""The embeddings section: the bundled embedder unless an address is given, and a price for every endpoint."""

from __future__ import annotations

from decimal import Decimal

from collegium_settings import Settings
from collegium_settings.checks import check
from collegium_settings.embeddings import BUNDLED_EMBEDDER, EmbeddingsSettings
from collegium_settings.models import MarkupSettings, ModelSettings, PriceSettings
from collegium_settings.secret import Secret


def problems(**fields: object) -> list[str]:
    models = fields.pop("models", ())
    settings = Settings(embeddings=EmbeddingsSettings(**fields), models=models)  # type: ignore[arg-type]
    return [problem.path for problem in check(settings)]


def test_the_bundled_embedder_needs_nothing_and_is_free():
    assert problems() == []
    assert problems(model=BUNDLED_EMBEDDER, price=PriceSettings(input_usd_per_mtok=1)) == []
    settings = EmbeddingsSettings()
    assert (settings.name, settings.price_picos().input_picos, settings.charge_picos().input_picos) == (
        BUNDLED_EMBEDDER,
        0,
        0,
    )
    assert EmbeddingsSettings(price=PriceSettings(input_usd_per_mtok=1)).charge_picos().input_picos == 1_000_000


def test_an_endpoint_needs_a_name_and_a_price():
    address = "http://example.org/v1"
    assert problems(base_url=address) == ["embeddings.model", "embeddings.price"]
    assert problems(base_url=address, model="e") == ["embeddings.price"]
    priced = PriceSettings(input_usd_per_mtok=2)
    assert problems(base_url=address, model="e", price=priced) == []
    charged = EmbeddingsSettings(
        base_url=address, model="e", price=priced, charge=MarkupSettings(markup=Decimal("1.5"))
    )
    assert charged.charge_picos().input_picos == 3_000_000


def test_a_published_price_is_taken():
    settings = EmbeddingsSettings(base_url="https://api.openai.com/v1", model="text-embedding-3-small")
    assert settings.price_picos().input_picos == 20_000


def test_what_belongs_to_an_endpoint_is_refused_without_one():
    assert problems(model="e", api_key=Secret("k"), dimensions=8) == [
        "embeddings.api_key",
        "embeddings.dimensions",
        "embeddings.model",
    ]


def test_no_two_models_have_one_name():
    chat = ModelSettings(name="e", base_url="http://example.org/v1", price=PriceSettings())
    assert problems(base_url="http://example.org/v1", model="e", price=PriceSettings(), models=(chat,)) == [
        "embeddings.model"
    ]
