"""The ``models`` section: endpoints, prices, limits.

One rule: an endpoint's key is a :class:`~collegium_settings.secret.Secret` and is used by workers alone.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from collegium_contracts.money import Price
from msgspec import field

from collegium_settings.errors import UnpricedModelError
from collegium_settings.money import picos_per_token, scale_picos, usd_to_picos
from collegium_settings.public_prices import public_price
from collegium_settings.scalars import (
    Count,
    DurationSeconds,
    HiddenText,
    HttpUrl,
    Identifier,
    Markup,
    ModelName,
    Text,
    TimeoutSeconds,
    Usd,
    whole,
)
from collegium_settings.section import Section

Rank = Literal["student", "ta", "teacher"]
_FREE = Decimal(0)


class PriceSettings(Section, frozen=True, kw_only=True):
    """A price in dollars per million tokens by class, and per call; at most six decimals.

    None for a class means the class above it: cached input and cache writes cost as input, reasoning as output.
    """

    input_usd_per_mtok: Usd = _FREE
    cached_input_usd_per_mtok: Usd | None = None
    cache_write_usd_per_mtok: Usd | None = None
    output_usd_per_mtok: Usd = _FREE
    reasoning_usd_per_mtok: Usd | None = None
    call_usd: Usd = _FREE

    def price(self) -> Price:
        """Returns the price in whole pico-dollars per token, exactly."""
        return Price(
            input_picos=picos_per_token(self.input_usd_per_mtok),
            output_picos=picos_per_token(self.output_usd_per_mtok),
            cached_input_picos=_optional(self.cached_input_usd_per_mtok),
            cache_write_picos=_optional(self.cache_write_usd_per_mtok),
            reasoning_picos=_optional(self.reasoning_usd_per_mtok),
            call_picos=usd_to_picos(f"{self.call_usd:f}"),
        )


class MarkupSettings(Section, frozen=True, kw_only=True):
    """A charge as a multiple of the price."""

    markup: Markup


class TokenWindowSettings(Section, frozen=True, kw_only=True):
    """At most ``max`` tokens in any rolling window."""

    max: Count
    window_seconds: DurationSeconds


class ModelLimits(Section, frozen=True, kw_only=True):
    """What one endpoint may be asked for at most; None: no limit of ours."""

    concurrency: Annotated[int, whole(1, 100_000)] | None = None
    requests_per_minute: Annotated[int, whole(1, 10_000_000)] | None = None
    tokens: TokenWindowSettings | None = None


class EndpointSettings(Section, frozen=True, kw_only=True):
    """One more place where a model is, beside its ``base_url``; without ``upstream_model`` it goes by the same name."""

    base_url: HttpUrl
    api_key: HiddenText | None = None
    upstream_model: Text | None = None


class SpokenModel(Section, frozen=True, kw_only=True):
    """What is said of a model of the roster, by the file or by an operator: all but its keys."""

    name: ModelName
    base_url: HttpUrl
    upstream_model: Text | None = None
    rank: Rank = "student"
    pool: Identifier = "general"
    domains: tuple[Text, ...] = ()
    capabilities: tuple[Text, ...] = ()
    context_tokens: Count = 128_000
    max_output_tokens: Count = 4096
    price: PriceSettings | None = None
    charge: MarkupSettings | PriceSettings | None = None
    limits: ModelLimits = ModelLimits()
    timeout_seconds: TimeoutSeconds = 45.0
    fallbacks: tuple[ModelName, ...] = ()
    labels: dict[str, Text] = field(default_factory=dict[str, str])

    def price_picos(self) -> Price:
        """Returns what we pay, in pico-dollars per token: as configured, or else as its provider publishes it.

        Raises UnpricedModelError where neither is known; zero is a price only where it is configured.
        """
        if self.price is not None:
            return self.price.price()
        found = public_price(self.base_url, self.upstream_model or self.name, self.context_tokens)
        if found is None:
            raise UnpricedModelError(f"model {self.name} has no price, and none is published for its address")
        return found

    def charge_picos(self) -> Price:
        """Returns what tenants pay, in pico-dollars per token: the price, its multiple, or a price of its own."""
        if isinstance(self.charge, PriceSettings):
            return self.charge.price()
        return charged(self.charge, self.price_picos())


class ModelSettings(SpokenModel, frozen=True, kw_only=True):
    """A model of the file: with its key, and further ``endpoints`` that serve the same model."""

    api_key: HiddenText | None = None
    endpoints: tuple[EndpointSettings, ...] = ()


def charged(charge: MarkupSettings | PriceSettings | None, price: Price) -> Price:
    """Returns what tenants pay where we pay ``price``: the same, its multiple, or a price of its own."""
    if isinstance(charge, PriceSettings):
        return charge.price()
    return price if charge is None else _times(price, charge.markup)


def _optional(usd: Decimal | None) -> int | None:
    return None if usd is None else picos_per_token(usd)


def _times(price: Price, markup: Decimal) -> Price:
    def times(picos: int | None) -> int | None:
        return None if picos is None else scale_picos(picos, markup)

    return Price(
        input_picos=scale_picos(price.input_picos, markup),
        output_picos=scale_picos(price.output_picos, markup),
        cached_input_picos=times(price.cached_input_picos),
        cache_write_picos=times(price.cache_write_picos),
        reasoning_picos=times(price.reasoning_picos),
        call_picos=scale_picos(price.call_picos, markup),
    )
