"""Prices that providers publish, for models that the configuration gives none: the data of genai-prices.

Read at start alone, from the installed package and never from the network. One rule: a price is found for the address
of the endpoint itself, and exactly, or not at all: what a machine of one's own costs nobody publishes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from collegium_contracts.money import Price

from collegium_settings.money import parse_usd, picos_per_token

# What a price may have beside these is not used by a chat: searches, audio, pages.
_CLASSES = {
    "input_picos": "input_mtok",
    "output_picos": "output_mtok",
    "cached_input_picos": "cache_read_mtok",
    "cache_write_picos": "cache_write_mtok",
}


@cache
def public_price(base_url: str, model: str, context_tokens: int, *, is_embedder: bool = False) -> Price | None:
    """Returns what the provider at an address publishes for a model, or none.

    None also where the price depends on a prompt's length below ``context_tokens``, or has more than six decimals.
    An embedder writes nothing, and has no price for it.
    """
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - takes 0.8 s, and most need no public price

    try:
        _, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    published = found.get_prices(datetime.now(UTC))
    picos: dict[str, int | None] = {}
    for field, name in _CLASSES.items():
        usd = _flat(getattr(published, name, None), context_tokens)
        if usd is not None:
            try:
                picos[field] = picos_per_token(parse_usd(f"{usd:f}"))
            except ValueError:
                return None
        elif getattr(published, name, None) is not None:
            return None
    if is_embedder:
        picos.setdefault("output_picos", 0)
    if "input_picos" not in picos or "output_picos" not in picos:
        return None
    return Price(**picos)  # pyright: ignore[reportArgumentType] - the two that may not be none are there


def _flat(price: Any, context_tokens: int) -> Decimal | None:
    """Returns a price that every prompt has which fits the context; none where there is no such."""
    tiers = getattr(price, "tiers", None)
    if tiers is None:
        return price
    return price.base if context_tokens <= min(tier.start for tier in tiers) else None
