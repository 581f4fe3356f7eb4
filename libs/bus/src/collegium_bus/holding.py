"""Asking billing for holds: the asks of one turn of the event loop go to their shard's owner in one question.

One rule: an ask ends with the owner's answer or with NoAnswerError in time; it may be asked again, because a hold's id
is its task's.
"""

from __future__ import annotations

import asyncio
import random

import structlog
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import shard_of
from collegium_contracts.requests import HoldAnswer, HoldAsk, HoldsRelease, HoldsReply, HoldsRequest

from collegium_bus.connection import Connection
from collegium_bus.errors import BusError, NoAnswerError

log = structlog.get_logger(__name__)

TRY_SECONDS = 2.0
BUDGET_SECONDS = 15.0
MAX_ASKS = 500
# Questions that may be on their way to one owner; what comes meanwhile goes into the next.
QUESTIONS_AT_ONCE = 2
# The owner says it of a shard that it has just taken, or of a tenant that it does not know yet.
_NOT_YET = "billing_unavailable"

_Waiting = tuple[HoldAsk, "asyncio.Future[HoldAnswer]"]


class Holds:
    """Asks for holds over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[int, list[_Waiting]] = {}
        self._asking: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, ask: HoldAsk, *, budget_seconds: float = BUDGET_SECONDS) -> HoldAnswer:
        """Returns the owner's answer; while nobody owns the shard, asks again. Raises NoAnswerError in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + budget_seconds
        while True:
            try:
                answer = await self._ask_once(ask)
                if answer.code != _NOT_YET:
                    return answer
                reason = answer.message
            except BusError as error:
                reason = str(error)
            pause = random.uniform(0.02, 0.2)  # noqa: S311 - jitter
            if loop.time() + pause >= deadline:
                raise NoAnswerError(f"no hold for task {ask.task} within {budget_seconds:g} s: {reason}")
            await asyncio.sleep(pause)

    def release(self, tenant: str, task: str) -> None:
        """Gives back the hold of a task that was not submitted; where this is lost, it expires."""
        message = HoldsRelease(tenant=tenant, tasks=[task])
        try:
            self._connection.publish(s.holds_of_shard(shard_of(tenant)), codec.encode(message))
        except BusError as error:
            log.info("hold not given back, it expires", task=task, error=str(error))

    def _ask_once(self, ask: HoldAsk) -> asyncio.Future[HoldAnswer]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[HoldAnswer] = loop.create_future()
        shard = shard_of(ask.tenant)
        waiting = self._waiting.setdefault(shard, [])
        waiting.append((ask, future))
        if len(waiting) == 1 and self._asking.get(shard, 0) < QUESTIONS_AT_ONCE:
            loop.call_soon(self._send, shard)
        return future

    def _send(self, shard: int) -> None:
        waiting = self._waiting.get(shard)
        if not waiting or self._asking.get(shard, 0) >= QUESTIONS_AT_ONCE:
            return
        batch, self._waiting[shard] = waiting[:MAX_ASKS], waiting[MAX_ASKS:]
        self._asking[shard] = self._asking.get(shard, 0) + 1
        task = asyncio.create_task(self._question(shard, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _question(self, shard: int, batch: list[_Waiting]) -> None:
        """Asks for a batch and hands out the answers, or one error to all."""
        try:
            payload, _ = await self._connection.request_raw(
                s.holds_of_shard(shard),
                codec.encode(HoldsRequest(asks=[ask for ask, _ in batch])),
                timeout_seconds=TRY_SECONDS,
            )
            reply = codec.reply.decode(payload)
            if not isinstance(reply, HoldsReply) or len(reply.answers) != len(batch):
                raise NoAnswerError(f"shard {shard} of holds answered with {type(reply).__name__}")
            for (_, future), answer in zip(batch, reply.answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except (BusError, ContractError) as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(NoAnswerError(str(error)))
        finally:
            self._asking[shard] -= 1
            self._send(shard)
