"""Versions of prices: which version a model's prices are, and what setting others makes of them. Pure.

A version is known by the Unix time in ms from which it applies and never names other prices: changed prices are a newer
version. One rule: what was said last applies, so prices that an operator set stand until the configuration says
something other than it said when they were set.
"""

from __future__ import annotations

import msgspec
from collegium_contracts.state import ModelRecord, PricePair


def repriced(standing: ModelRecord | None, configured: ModelRecord, now_ms: int) -> ModelRecord:
    """Returns a configured model with the prices that apply and their version."""
    if standing is None:
        return msgspec.structs.replace(configured, price_version=now_ms)
    said = _pair(configured)
    if standing.configured is not None and standing.configured == said:
        return msgspec.structs.replace(
            configured,
            price=standing.price,
            charge=standing.charge,
            price_version=standing.price_version,
            configured=said,
        )
    if _pair(standing) == said and standing.price_version:
        return msgspec.structs.replace(configured, price_version=standing.price_version)
    return msgspec.structs.replace(configured, price_version=_next(standing, now_ms))


def set_prices(standing: ModelRecord, wanted: PricePair, now_ms: int) -> ModelRecord:
    """Returns a model with the prices that an operator wants; the same model where it has them."""
    if _pair(standing) == wanted and standing.price_version:
        return standing
    said = standing.configured or _pair(standing)
    return msgspec.structs.replace(
        standing,
        price=wanted.price,
        charge=wanted.charge,
        price_version=_next(standing, now_ms),
        configured=said if said != wanted else None,
    )


def _pair(model: ModelRecord) -> PricePair:
    return PricePair(price=model.price, charge=model.charge)


def _next(standing: ModelRecord, now_ms: int) -> int:
    # A clock that stands behind must not give a version twice.
    return max(now_ms, standing.price_version + 1)
