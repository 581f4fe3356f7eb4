"""Setting a model's prices while the platform runs: one compare-and-set of the roster.

One rule: a call keeps the prices it was dispatched with, so a price begins now or later, and never earlier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from collegium_bus.connection import Connection
from collegium_bus.errors import AlreadyStandsError, BusError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.ledger import PriceSet, PriceSetReply
from collegium_contracts.messages import Message
from collegium_contracts.money import Price
from collegium_contracts.priceversions import in_force
from collegium_contracts.requests import Refused
from collegium_contracts.state import ModelRecord, Roster

from collegium_router.prices import PriceTimeError, schedule_prices, set_prices

log = structlog.get_logger(__name__)

MAX_AT_ONCE: Final = 16


class PriceAnswers:
    """Answers ``svc.router.price``; any router may, as the roster has one revision."""

    def __init__(self, connection: Connection, models: Bucket, now_ms: Callable[[], int]) -> None:
        self._connection = connection
        self._models = models
        self._now_ms = now_ms
        self._subscription: int | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins answering; of several routers one is asked."""
        client = self._connection.client
        self._subscription = client.subscribe_raw(s.SVC_ROUTER_PRICE, self._on_request, self._connection.service)

    async def stop(self) -> None:
        """Answers no more; what was asked before is left to the asker's deadline."""
        if self._subscription is not None:
            self._connection.client.unsubscribe_raw(self._subscription)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _on_request(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        if reply and len(self._answering) < MAX_AT_ONCE:
            task = asyncio.create_task(self._answer(reply.decode(), payload))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, reply: str, payload: bytes) -> None:
        try:
            answer: Message = await self._set(codec.request.decode(payload))
        except RequestRefusedError as error:
            answer = Refused(code=error.code, message=error.message, param=error.param)
        except ContractError as error:
            answer = Refused(code="invalid_value", message=str(error))
        except BusError as error:
            log.warning("price not set", error=str(error))
            answer = Refused(code="broker_unavailable", message="the roster cannot be written; ask again")
        self._connection.publish(reply, codec.encode(answer))

    async def _set(self, asked: Any) -> PriceSetReply:
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
            priced = _priced(standing, asked, now_ms)
            if priced is standing:
                version = asked.from_ms or in_force(standing, now_ms).price_version
                return PriceSetReply(model=asked.model, version=version, is_new=False)
            models = [priced if model is standing else model for model in roster.models]
            changed = msgspec.structs.replace(roster, version=roster.version + 1, models=models)
            try:
                await self._models.put(s.ROSTER_KEY, codec.encode(changed), expected_revision=entry.revision)
            except AlreadyStandsError:
                continue
            return PriceSetReply(model=asked.model, version=asked.from_ms or priced.price_version, is_new=True)


def _model(roster: Roster, name: str) -> ModelRecord:
    for model in roster.models:
        if model.name == name:
            return model
    raise RequestRefusedError("not_found", "there is no model of this name", "model")


def _check(price: Price, param: str) -> None:
    if min(picos or 0 for picos in msgspec.structs.astuple(price)) < 0:
        raise RequestRefusedError("invalid_price", "a price is zero or more", param)


def _priced(standing: ModelRecord, asked: PriceSet, now_ms: int) -> ModelRecord:
    if not asked.from_ms:
        return set_prices(standing, asked.prices, now_ms)
    try:
        return schedule_prices(standing, asked.prices, asked.from_ms, now_ms)
    except PriceTimeError as error:
        raise RequestRefusedError(error.code, str(error), "valid_from") from None
