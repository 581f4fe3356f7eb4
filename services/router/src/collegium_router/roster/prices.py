"""Versions of prices: which version a model's prices are, and what setting others makes of them. Pure.

A version is known by the Unix time in ms from which it applies and never names other prices: changed prices are a newer
version. A version ends where the next one begins, so versions never overlap and leave no gap. One rule: what was said
last applies, so prices that an operator set stand until the configuration says something other than it said when they
were set; a version that was scheduled begins at its time whatever else was said.
"""

from __future__ import annotations

from typing import Final

import msgspec
from collegium_contracts.priceversions import in_force
from collegium_contracts.state import ModelRecord, PricePair, PriceVersion

# All models stand in one value; nobody plans more changes of one model's prices.
UPCOMING_MAX: Final = 16
# Farther away than anybody plans: a slip of the keyboard.
AHEAD_MS_MAX: Final = 2 * 366 * 86_400_000
# What begins sooner may have begun where the roster has not arrived.
WITHDRAWN_AHEAD_MS: Final = 10_000


class PriceTimeError(ValueError):
    """A version can not begin at that time; ``code`` is of the error catalogue."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def repriced(standing: ModelRecord | None, configured: ModelRecord, now_ms: int) -> ModelRecord:
    """Returns a configured model with the prices that apply and their version."""
    if standing is None:
        return msgspec.structs.replace(configured, price_version=now_ms)
    standing = in_force(standing, now_ms)
    said = _pair(configured)
    if standing.configured is not None and standing.configured == said:
        return msgspec.structs.replace(
            configured,
            price=standing.price,
            charge=standing.charge,
            price_version=standing.price_version,
            configured=said,
            upcoming=standing.upcoming,
        )
    if _pair(standing) == said and standing.price_version:
        return msgspec.structs.replace(configured, price_version=standing.price_version, upcoming=standing.upcoming)
    standing, version = _next(standing, now_ms)
    return msgspec.structs.replace(configured, price_version=version, upcoming=standing.upcoming)


def set_prices(standing: ModelRecord, wanted: PricePair, now_ms: int) -> ModelRecord:
    """Returns a model with the prices that an operator wants from now on; the same model where it has them."""
    now = in_force(standing, now_ms)
    if _pair(now) == wanted and now.price_version:
        return standing
    said = now.configured or _pair(now)
    now, version = _next(now, now_ms)
    return msgspec.structs.replace(
        now,
        price=wanted.price,
        charge=wanted.charge,
        price_version=version,
        configured=said if said != wanted else None,
    )


def schedule_prices(standing: ModelRecord, wanted: PricePair, from_ms: int, now_ms: int) -> ModelRecord:
    """Returns a model with a version that begins later; the same model where that version stands already.

    Raises PriceTimeError where the time has its prices: it is past, or not after every version that stands.
    """
    now = in_force(standing, now_ms)
    version = PriceVersion(version=from_ms, prices=wanted)
    if version in now.upcoming or (from_ms == now.price_version and _pair(now) == wanted):
        return standing
    if from_ms <= max(now.price_version, now_ms):
        raise PriceTimeError("price_overlap", "that time has its prices already, and they never change; leave it out")
    if now.upcoming and from_ms <= now.upcoming[-1].version:
        last = now.upcoming[-1].version
        raise PriceTimeError("price_overlap", f"a version begins at {last} already, and never changes; begin after it")
    if from_ms > now_ms + AHEAD_MS_MAX:
        raise PriceTimeError("invalid_price", "a version begins within two years")
    if len(now.upcoming) >= UPCOMING_MAX:
        raise PriceTimeError("invalid_price", f"at most {UPCOMING_MAX} versions of a model's prices wait")
    return msgspec.structs.replace(now, upcoming=[*now.upcoming, version])


def withdraw_prices(standing: ModelRecord, version: int, now_ms: int) -> ModelRecord:
    """Returns a model without a version that was scheduled; the version before it then applies on.

    Raises PriceTimeError where no such version waits, or it begins within WITHDRAWN_AHEAD_MS.
    """
    now = in_force(standing, now_ms)
    kept = [one for one in now.upcoming if one.version != version]
    if len(kept) == len(now.upcoming):
        if 0 < version <= now.price_version:
            raise PriceTimeError("price_overlap", "that version has begun, and calls have it; set other prices instead")
        raise PriceTimeError("not_found", f"no version {version} of this model's prices is scheduled")
    if version < now_ms + WITHDRAWN_AHEAD_MS:
        raise PriceTimeError("price_overlap", "that version begins in a moment; set other prices when it has")
    return msgspec.structs.replace(now, upcoming=kept)


def _pair(model: ModelRecord) -> PricePair:
    return PricePair(price=model.price, charge=model.charge)


def _next(standing: ModelRecord, now_ms: int) -> tuple[ModelRecord, int]:
    """Returns the version that begins now, and the model without the versions that it comes after."""
    while True:
        # A clock that stands behind must not give a version twice.
        version = max(now_ms, standing.price_version + 1)
        turned = in_force(standing, version)
        if turned is standing:
            return standing, version
        standing = turned
