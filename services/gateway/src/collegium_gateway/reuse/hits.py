"""Counting answers that are given again: each is a request, and costs no question of its own on a busy key.

The owner of the tenant's holds counts them with all other requests. A gateway that heard of a key's rates within the
last second gives an answer at once, takes it off what is left, and tells the owner of all such answers a moment later.
Where it knows nothing that fresh, or nothing is left, it asks the owner first. One rule: an owner that does not answer
refuses no answer that stands already; it is counted when the owner is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from collegium_bus.errors import NoAnswerError
from collegium_bus.holding import Holds
from collegium_contracts.messages import TaskRef
from collegium_contracts.requests import HoldAnswer, HoldAsk, Rates

log = structlog.get_logger(__name__)

FRESH_SECONDS: Final = 1.0
TELL_SECONDS: Final = 0.1
# A minute's limit is another after a minute.
HEARD_SECONDS: Final = 60.0
# Whoever waits for an answer that stands already waits no longer for its count.
FIRST_SECONDS: Final = 1.0
# Keys whose rates are remembered; beyond it those with nothing to tell are forgotten.
KEYS_MAX: Final = 10_000

_Key = tuple[str, str]


class _Standing:
    """What is known of one key's rates, and what of it the owner was not told yet."""

    __slots__ = ("at", "rates", "told", "untold")

    def __init__(self) -> None:
        self.rates = Rates()
        self.at = float("-inf")
        self.untold = 0
        self.told = 0


class Hits:
    """Counts for one gateway; ``clock`` gives seconds that never go back."""

    def __init__(self, holds: Holds, clock: Callable[[], float]) -> None:
        self._holds = holds
        self._clock = clock
        self._standings: dict[_Key, _Standing] = {}
        self._telling: asyncio.Task[None] | None = None

    def learn(self, tenant: str, key_id: str, rates: Rates) -> None:
        """Takes what the owner said of a key's rates just now."""
        standing = self._standing((tenant, key_id))
        standing.rates = rates
        standing.at = self._clock()

    def take(self, tenant: str, key_id: str) -> Rates | None:
        """Counts one answer and returns the rates after it; none, with nothing counted, where the owner has to say."""
        standing = self._standings.get((tenant, key_id))
        if standing is None or self._clock() - standing.at > FRESH_SECONDS:
            return None
        left = standing.rates.remaining_requests - standing.untold - standing.told
        if standing.rates.limit_requests and left < 1:
            return None
        self._note(standing)
        return msgspec.structs.replace(standing.rates, remaining_requests=max(0, left - 1))

    def heard(self, tenant: str, key_id: str) -> Rates | None:
        """Returns a key's rates as they were heard of last, for whoever counts nothing; none after HEARD_SECONDS."""
        standing = self._standings.get((tenant, key_id))
        if standing is None or (age := self._clock() - standing.at) > HEARD_SECONDS:
            return None
        rates, age_ms = standing.rates, int(age * 1000)
        return msgspec.structs.replace(
            rates,
            remaining_requests=max(0, rates.remaining_requests - standing.untold - standing.told),
            reset_requests_ms=max(0, rates.reset_requests_ms - age_ms),
            reset_tokens_ms=max(0, rates.reset_tokens_ms - age_ms),
        )

    async def ask(self, task: TaskRef) -> HoldAnswer | None:
        """Asks the owner for one answer; none where it said nothing in time, and then the answer is counted later."""
        key = (task.tenant, task.key_id)
        standing = self._standings.get(key)
        asking = self._ask_of(task)
        if standing is not None and standing.untold:
            # The owner hears of those first: what was given already is not free for this one.
            _, answer = await asyncio.gather(self._tell_of(key, standing, FIRST_SECONDS), asking)
        else:
            answer = await asking
        if answer is None:
            self._note(self._standing(key))
            return None
        self.learn(task.tenant, task.key_id, answer.rates)
        return answer

    async def _ask_of(self, task: TaskRef) -> HoldAnswer | None:
        question = HoldAsk(task=task.id, tenant=task.tenant, project=task.project, key_id=task.key_id, hits=1)
        try:
            return await self._holds.ask(question, budget_seconds=FIRST_SECONDS)
        except NoAnswerError as error:
            log.info("an answer is given uncounted so far", task=task.id, error=str(error))
            return None

    async def stop(self) -> None:
        """Tells of what was not told yet, where somebody listens."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        for standing in self._standings.values():
            # What was on its way may have been counted or not: it is not told twice.
            standing.told = 0
        await self._tell(FIRST_SECONDS)

    def _standing(self, key: _Key) -> _Standing:
        standing = self._standings.get(key)
        if standing is None:
            if len(self._standings) >= KEYS_MAX:
                self._standings = {name: one for name, one in self._standings.items() if one.untold or one.told}
            standing = self._standings[key] = _Standing()
        return standing

    def _note(self, standing: _Standing) -> None:
        standing.untold += 1
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._keep_telling(), name="hits")

    async def _keep_telling(self) -> None:
        while any(one.untold for one in self._standings.values()):
            await asyncio.sleep(TELL_SECONDS)
            await self._tell(FIRST_SECONDS)

    async def _tell(self, budget_seconds: float) -> None:
        told = [(key, one) for key, one in self._standings.items() if one.untold]
        await asyncio.gather(*(self._tell_of(key, one, budget_seconds) for key, one in told))

    async def _tell_of(self, key: _Key, standing: _Standing, budget_seconds: float) -> None:
        count, standing.untold = standing.untold, 0
        standing.told += count
        ask = HoldAsk(task="", tenant=key[0], key_id=key[1], hits=count, are_given=True)
        try:
            answer = await self._holds.ask(ask, budget_seconds=budget_seconds)
        except NoAnswerError as error:
            log.info("answers are not counted yet", tenant=key[0], answers=count, error=str(error))
            standing.untold += count
        else:
            standing.rates = answer.rates
            standing.at = self._clock()
        finally:
            standing.told = max(0, standing.told - count)
