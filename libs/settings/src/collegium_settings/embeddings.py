"""The ``embeddings`` section: the bundled embedder, or an OpenAI-compatible endpoint, and what its vectors cost.

One rule: a vector belongs to the model that made it, so the model has a name, and another model another one.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from collegium_contracts.money import Price

from collegium_settings.errors import UnpricedModelError
from collegium_settings.models import MarkupSettings, ModelLimits, PriceSettings, charged
from collegium_settings.public_prices import public_price
from collegium_settings.scalars import (
    Count,
    HiddenText,
    HttpUrl,
    ModelName,
    SizeBytes,
    Text,
    TimeoutSeconds,
    whole,
)
from collegium_settings.section import Section

BUNDLED_EMBEDDER: Final = "all-minilm-l6-v2"
BUNDLED_DIMENSIONS: Final = 384
BUNDLED_TEXT_TOKENS: Final = 256
_FREE = PriceSettings(input_usd_per_mtok=Decimal(0))


class PreviousEmbedder(Section, frozen=True, kw_only=True):
    """The endpoint that embedded before: asked while documents are embedded anew, so that both signals go on."""

    base_url: HttpUrl
    model: ModelName
    upstream_model: Text | None = None
    api_key: HiddenText | None = None
    dimensions: Annotated[int, whole(1, 65_536)] | None = None
    timeout_seconds: TimeoutSeconds = 30.0

    def as_embeddings(self) -> EmbeddingsSettings:
        """Returns the settings that such an embedder has."""
        return EmbeddingsSettings(**{name: getattr(self, name) for name in self.__struct_fields__})


class EmbeddingsSettings(Section, frozen=True, kw_only=True):
    """What embeds texts; no ``base_url``: the bundled embedder, in ``threads`` threads of a process of its own.

    ``model`` is the name in the roster and ``upstream_model`` the endpoint's own; ``dimensions`` are asked for where
    they are not given. ``text_tokens`` is the most that an endpoint takes of one text. ``memory_bytes`` bounds the
    vectors that context keeps in memory. ``previous`` is the endpoint of before, while documents are embedded anew.
    """

    base_url: HttpUrl | None = None
    model: ModelName | None = None
    upstream_model: Text | None = None
    api_key: HiddenText | None = None
    dimensions: Annotated[int, whole(1, 65_536)] | None = None
    text_tokens: Count = 8192
    price: PriceSettings | None = None
    charge: MarkupSettings | PriceSettings | None = None
    limits: ModelLimits = ModelLimits()
    timeout_seconds: TimeoutSeconds = 30.0
    threads: Annotated[int, whole(1, 64)] = 2
    memory_bytes: SizeBytes = 64_000_000
    previous: PreviousEmbedder | None = None

    @property
    def name(self) -> str:
        """The embedder's name in the roster."""
        return self.model or BUNDLED_EMBEDDER

    def price_picos(self) -> Price:
        """Returns what a call costs: as configured, or as published for the address; the bundled embedder is free.

        Raises UnpricedModelError where an endpoint's price is not known.
        """
        if self.price is not None:
            return self.price.price()
        if self.base_url is None:
            return _FREE.price()
        found = public_price(self.base_url, self.upstream_model or self.name, self.text_tokens, is_embedder=True)
        if found is None:
            raise UnpricedModelError(f"embedder {self.name} has no price, and none is published for its address")
        return found

    def charge_picos(self) -> Price:
        """Returns what tenants pay for it."""
        return charged(self.charge, self.price_picos())
