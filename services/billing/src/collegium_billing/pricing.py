"""Versions of prices as the books keep them. Pure.

One rule: a version names its prices for good; what a call had is found again by its model and version.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from collegium_contracts.money import Price


class PriceRow(NamedTuple):
    """One version of a model's prices; ``cost`` and ``charge`` are JSON of pico-dollars by class (see Classes)."""

    model: str
    version: int
    cost: str
    charge: str


class Classes(msgspec.Struct, frozen=True):
    """Pico-dollars per token of every class, and per call; nothing is left to another class."""

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    call: int


def price_row(model: str, version: int, cost: Price, charge: Price) -> PriceRow:
    """Returns a version as it is stored."""
    return PriceRow(model, version, _json(cost), _json(charge))


def classes(price: Price) -> Classes:
    """Returns a price with every class spelled out."""

    def given(picos: int | None, otherwise: int) -> int:
        return otherwise if picos is None else picos

    return Classes(
        input=price.input_picos,
        cached_input=given(price.cached_input_picos, price.input_picos),
        cache_write=given(price.cache_write_picos, price.input_picos),
        output=price.output_picos,
        reasoning=given(price.reasoning_picos, price.output_picos),
        call=price.call_picos,
    )


def _json(price: Price) -> str:
    return msgspec.json.encode(classes(price)).decode()
