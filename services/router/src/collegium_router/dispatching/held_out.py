"""Asking fine-tuned models what they were not trained on: each shard's owner is asked to, and stores the question.

Evolution has the samples, and whoever owns the shard has what learning may still cost. One rule: nobody is told that a
question is taken before it stands where it is asked from.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from collegium_bus.errors import BusError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import Message
from collegium_contracts.requests import Refused
from collegium_contracts.students import HeldOutAsk, HeldOutReply
from collegium_runtime.platform import Platform

from collegium_router.dispatching.probes import Probes

log = structlog.get_logger(__name__)

# More at once come from nobody; who asked meanwhile asks again.
AT_ONCE: Final = 32


class HeldOutAnswers:
    """Answers ``svc.router.probes.<shard>`` for the shards owned."""

    def __init__(self, platform: Platform, probes: Probes) -> None:
        self._platform = platform
        self._probes = probes
        self._subscriptions: dict[int, int] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def answer_for(self, shards: frozenset[int]) -> None:
        """Answers for these shards from now on, and for no others."""
        client = self._platform.connection.client
        for shard in set(self._subscriptions) - shards:
            client.unsubscribe_raw(self._subscriptions.pop(shard))
        for shard in shards - set(self._subscriptions):
            self._subscriptions[shard] = client.subscribe_raw(s.probes_of_shard(shard), self._on_request)

    async def stop(self) -> None:
        """Answers no more."""
        self.answer_for(frozenset())
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _on_request(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        if not reply or len(self._answering) >= AT_ONCE:
            return
        task = asyncio.create_task(self._answer(reply.decode(), payload))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, reply: str, payload: bytes) -> None:
        answer: Message
        try:
            asked = codec.request.decode(payload)
            if not isinstance(asked, HeldOutAsk):
                raise ContractError(f"HeldOutAsk is asked here, not {type(asked).__name__}")
            answer = HeldOutReply(state=await self._probes.hold_out(asked))
        except ContractError as error:
            answer = Refused(code="invalid_value", message=str(error))
        except BusError as error:
            log.warning("held out question not stored", error=str(error))
            answer = Refused(code="broker_unavailable", message="the question cannot be stored now; ask again")
        self._platform.connection.publish(reply, codec.encode(answer))
