"""Changing the roster while the platform runs, as asked by another service: one compare-and-set, tried until it holds.

Not here: which change (pricing.py, switching.py). One rule: any router may answer, because the roster has one revision.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from collegium_bus.connection import Connection
from collegium_bus.errors import AlreadyStandsError, BusError, RequestRefusedError, TooLargeError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import Message
from collegium_contracts.requests import Refused
from collegium_contracts.state import ModelRecord, Roster

from collegium_router.roster.bases import with_bases

log = structlog.get_logger(__name__)

MAX_AT_ONCE: Final = 16


class RosterAnswers(ABC):
    """Answers one subject whose questions change one model of the roster."""

    def __init__(self, connection: Connection, models: Bucket, now_ms: Callable[[], int], subject: str) -> None:
        self._connection = connection
        self._models = models
        self._now_ms = now_ms
        self._subject = subject
        self._subscription: int | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins answering; of several routers one is asked."""
        client = self._connection.client
        self._subscription = client.subscribe_raw(self._subject, self._on_request, self._connection.service)

    async def stop(self) -> None:
        """Answers no more; what was asked before is left to the asker's deadline."""
        if self._subscription is not None:
            self._connection.client.unsubscribe_raw(self._subscription)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    @abstractmethod
    def check(self, asked: Any) -> str:
        """Returns the name of the model that a question is about; raises RequestRefusedError for any other question."""

    @abstractmethod
    def change(self, asked: Any, standing: ModelRecord, now_ms: int) -> ModelRecord:
        """Returns the model as it is to be, the same one where it is so already; raises RequestRefusedError."""

    @abstractmethod
    def reply(self, asked: Any, before: ModelRecord, after: ModelRecord, version: int, now_ms: int) -> Message:
        """Returns the answer; ``version`` is the roster's."""

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
        except TooLargeError as error:
            log.error("roster not changed", error=str(error))
            answer = Refused(code="roster_too_large", message="the roster would be larger than the broker takes")
        except BusError as error:
            log.warning("roster not changed", error=str(error))
            answer = Refused(code="broker_unavailable", message="the roster cannot be written; ask again")
        self._connection.publish(reply, codec.encode(answer))

    async def _set(self, asked: Any) -> Message:
        self.check(asked)
        while True:
            entry = await self._models.get(s.ROSTER_KEY)
            roster = codec.state.decode(entry.value) if entry is not None else None
            if entry is None or not isinstance(roster, Roster):
                raise RequestRefusedError("not_found", "there is no roster yet", "model")
            anew, answer = self.anew(asked, roster, self._now_ms())
            if anew is roster:
                return answer
            anew = msgspec.structs.replace(anew, models=with_bases(anew.models))
            try:
                await self._models.put(s.ROSTER_KEY, codec.encode(anew), expected_revision=entry.revision)
            except AlreadyStandsError:
                continue
            return answer

    def anew(self, asked: Any, roster: Roster, now_ms: int) -> tuple[Roster, Message]:
        """Returns the roster as it is to be, the same one where it is so already, and the answer."""
        standing = _model(roster, self.check(asked))
        changed = self.change(asked, standing, now_ms)
        if changed is standing:
            return roster, self.reply(asked, standing, standing, roster.version, now_ms)
        models = [changed if model is standing else model for model in roster.models]
        anew = msgspec.structs.replace(roster, version=roster.version + 1, models=models)
        return anew, self.reply(asked, standing, changed, anew.version, now_ms)


def _model(roster: Roster, name: str) -> ModelRecord:
    for model in roster.models:
        if model.name == name:
            return model
    raise RequestRefusedError("not_found", "there is no model of this name", "model")
