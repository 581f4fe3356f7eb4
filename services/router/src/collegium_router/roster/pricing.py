"""Setting a model's prices while the platform runs, and taking a scheduled version back.

One rule: a call keeps the prices it was dispatched with, so a price begins now or later, and never earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import subjects as s
from collegium_contracts.ledger import PriceSet, PriceSetReply, PriceWithdraw
from collegium_contracts.messages import Message
from collegium_contracts.money import Price
from collegium_contracts.priceversions import in_force
from collegium_contracts.state import ModelRecord

from collegium_router.roster.prices import PriceTimeError, schedule_prices, set_prices, withdraw_prices
from collegium_router.roster.roster_answers import RosterAnswers


class PriceAnswers(RosterAnswers):
    """Answers ``svc.router.price``."""

    def __init__(self, connection: Connection, models: Bucket, now_ms: Callable[[], int]) -> None:
        super().__init__(connection, models, now_ms, s.SVC_ROUTER_PRICE)

    def check(self, asked: Any) -> str:
        """Returns the name of the model whose prices are set; raises RequestRefusedError with the field at fault."""
        if not isinstance(asked, PriceSet | PriceWithdraw):
            raise RequestRefusedError("invalid_value", f"PriceSet is asked here, not {type(asked).__name__}")
        if isinstance(asked, PriceSet):
            _check(asked.prices.price, "cost")
            _check(asked.prices.charge, "charge")
        return asked.model

    def change(self, asked: PriceSet | PriceWithdraw, standing: ModelRecord, now_ms: int) -> ModelRecord:
        """Returns the model with its prices."""
        if isinstance(asked, PriceWithdraw):
            try:
                return withdraw_prices(standing, asked.version, now_ms)
            except PriceTimeError as error:
                raise RequestRefusedError(error.code, str(error), "version") from None
        if not asked.from_ms:
            return set_prices(standing, asked.prices, now_ms)
        try:
            return schedule_prices(standing, asked.prices, asked.from_ms, now_ms)
        except PriceTimeError as error:
            raise RequestRefusedError(error.code, str(error), "valid_from") from None

    def reply(
        self, asked: PriceSet | PriceWithdraw, before: ModelRecord, after: ModelRecord, version: int, now_ms: int
    ) -> Message:
        """Returns which version of the prices that is."""
        is_new = after is not before
        wanted = asked.version if isinstance(asked, PriceWithdraw) else asked.from_ms
        standing = after.price_version if is_new else in_force(before, now_ms).price_version
        return PriceSetReply(model=asked.model, version=wanted or standing, is_new=is_new)


def _check(price: Price, param: str) -> None:
    if min(picos or 0 for picos in msgspec.structs.astuple(price)) < 0:
        raise RequestRefusedError("invalid_price", "a price is zero or more", param)
