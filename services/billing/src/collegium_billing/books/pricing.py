"""Versions of prices as the books keep them. Pure.

One rule: a version names its prices for good; what a call had is found again by its model and version.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from collegium_contracts.money import Price, by_class


class PriceRow(NamedTuple):
    """One version of a model's prices; ``cost`` and ``charge`` are JSON of pico-dollars by class (money.by_class)."""

    model: str
    version: int
    cost: str
    charge: str


def price_row(model: str, version: int, cost: Price, charge: Price) -> PriceRow:
    """Returns a version as it is stored."""
    return PriceRow(model, version, _json(cost), _json(charge))


def _json(price: Price) -> str:
    return msgspec.json.encode(by_class(price)).decode()
