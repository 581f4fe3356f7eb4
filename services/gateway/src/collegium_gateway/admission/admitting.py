"""Letting a task in: its hold is asked for while its rules are read, and both have to agree.

One rule: what its rules refuse gives its hold back, and so does whoever stops waiting for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.openplans import as_planned
from collegium_gates.deciding import MAX_GROWTH_BYTES

from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.holding import Admission, OnRates
from collegium_gateway.errors import ApiError

# Turns of the loop from asking for a hold until the question is with the broker.
TURNS_TO_ASK: Final = 5


class Admitting:
    """Holds and rules, for one gateway."""

    def __init__(self, admission: Admission, gating: Gating) -> None:
        self._admission = admission
        self._gating = gating

    async def admit(self, submitted: TaskSubmitted, on_rates: OnRates | None, *, stores: bool) -> TaskSubmitted:
        """Returns a task with its hold that its gates let pass; what they refuse gives its hold back.

        Where a rule wants people to be asked first, the task says so and is held all the same: whoever lets it wait
        gives the hold back.
        """
        if submitted.task.gated is None:
            return await self._admission.admit(submitted, on_rates, stores=stores)
        # Words that are put in the place of others may be longer.
        more = MAX_GROWTH_BYTES if self._gating.rewrites(submitted.task) else 0
        longest = msgspec.structs.replace(submitted, prompt_bytes=submitted.prompt_bytes + more)
        holding = asyncio.create_task(self._admission.admit(longest, on_rates, stores=stores))
        try:
            for _ in range(TURNS_TO_ASK):
                # The question goes out before time is spent on rules here.
                await asyncio.sleep(0)
            checked = await self._gating.check(submitted)
        except ApiError as error:
            with contextlib.suppress(ApiError):
                self._admission.give_back(await holding, error)
            raise
        except BaseException:
            # Nothing was submitted, and nobody waits any more: what is granted all the same is given back.
            holding.add_done_callback(self._give_back)
            raise
        held = await holding
        if not held.task.open_to:
            checked = as_planned(checked, held.task.plan)
        task = msgspec.structs.replace(checked.task, hold_expires_ms=held.task.hold_expires_ms)
        return msgspec.structs.replace(checked, task=task)

    def _give_back(self, holding: asyncio.Task[TaskSubmitted]) -> None:
        if not holding.cancelled() and holding.exception() is None:
            self._admission.give_back(holding.result(), asyncio.CancelledError())
