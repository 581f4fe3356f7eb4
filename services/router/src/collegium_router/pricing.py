"""Setting a model's prices while the platform runs: one compare-and-set of the roster.

One rule: a call keeps the prices it was dispatched with, so a price begins now and never earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.errors import AlreadyStandsError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.ledger import PriceSet, PriceSetReply
from collegium_contracts.messages import Message
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, Roster

from collegium_router.prices import set_prices


class PriceAnswers:
    """Answers ``svc.router.price``; any router may, as the roster has one revision."""

    def __init__(self, models: Bucket, now_ms: Callable[[], int]) -> None:
        self._models = models
        self._now_ms = now_ms

    async def answer(self, asked: Any, _traceparent: str) -> Message:
        """Sets a model's prices; raises RequestRefusedError with the field at fault."""
        if not isinstance(asked, PriceSet):
            raise RequestRefusedError("invalid_value", f"PriceSet is asked here, not {type(asked).__name__}")
        _check(asked.prices.price, "cost")
        _check(asked.prices.charge, "charge")
        while True:
            entry = await self._models.get(s.ROSTER_KEY)
            roster = codec.state.decode(entry.value) if entry is not None else None
            if entry is None or not isinstance(roster, Roster):
                raise RequestRefusedError("not_found", "there is no roster yet", "model")
            now_ms = self._now_ms()
            standing = _model(roster, asked.model)
            _check_time(asked.from_ms, standing, now_ms)
            priced = set_prices(standing, asked.prices, now_ms)
            if priced is standing:
                return PriceSetReply(model=asked.model, version=standing.price_version, is_new=False)
            models = [priced if model is standing else model for model in roster.models]
            changed = msgspec.structs.replace(roster, version=roster.version + 1, models=models)
            try:
                await self._models.put(s.ROSTER_KEY, codec.encode(changed), expected_revision=entry.revision)
            except AlreadyStandsError:
                continue
            return PriceSetReply(model=asked.model, version=priced.price_version, is_new=True)


def _model(roster: Roster, name: str) -> ModelRecord:
    for model in roster.models:
        if model.name == name:
            return model
    raise RequestRefusedError("not_found", "there is no model of this name", "model")


def _check(price: Price, param: str) -> None:
    if min(picos or 0 for picos in msgspec.structs.astuple(price)) < 0:
        raise RequestRefusedError("invalid_price", "a price is zero or more", param)


def _check_time(from_ms: int, standing: ModelRecord, now_ms: int) -> None:
    if not from_ms:
        return
    if from_ms <= max(standing.price_version, now_ms):
        raise RequestRefusedError(
            "price_overlap",
            "that time has its prices already, and they never change; leave it out",
            "valid_from",
        )
    raise RequestRefusedError("invalid_price", "a price begins now; set it when its time has come", "valid_from")
