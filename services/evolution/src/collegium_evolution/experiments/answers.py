"""What is asked about experiments and flags, and the room as one part. One rule: whose they are is checked here."""

from __future__ import annotations

from typing import Any

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.experiment_requests import (
    ExperimentAct,
    ExperimentCreate,
    ExperimentsAsk,
    ExperimentsReply,
    FlagsAsk,
    FlagSet,
    FlagsReply,
    FlagSwitch,
    HoldoutSet,
)
from collegium_contracts.messages import Message
from collegium_runtime.audit import Audit
from collegium_runtime.platform import Platform

from collegium_evolution.experiments import experiment_store, exposure_store
from collegium_evolution.experiments.changing import Changing, Tell
from collegium_evolution.experiments.watching import Watching


class Experiments:
    """Experiments and flags of one replica."""

    def __init__(self, platform: Platform, pool: Any, audit: Audit, tell: Tell) -> None:
        self._pool = pool
        self.changing = Changing(platform, pool, audit, tell)
        self.watching = Watching(platform, pool, self.changing)

    async def answer(self, asked: Message, _traceparent: str) -> Message:
        """Answers one question; raises RequestRefusedError, or what the database or the broker raised."""
        match asked:
            case ExperimentsAsk():
                return await self._list(asked)
            case ExperimentCreate():
                return ExperimentsReply(rows=[await self.changing.create(asked)])
            case ExperimentAct():
                return ExperimentsReply(rows=[await self.changing.act(asked)])
            case FlagsAsk():
                return await self._flags(asked.tenant)
            case FlagSet():
                return FlagsReply(rows=[await self.changing.set_flag(asked)])
            case FlagSwitch():
                found = await self.changing.switch(asked)
                return msgspec.structs.replace(await self._flags(asked.tenant), rows=found)
            case HoldoutSet():
                await self.changing.hold_out(asked)
                return msgspec.structs.replace(await self._flags(asked.tenant), rows=[])
            case _:
                raise RequestRefusedError("invalid_value", f"{type(asked).__name__} is not asked here")

    async def erase(self, tenant: str) -> int:
        """Removes what stands of a tenant; returns how many rows and values that were."""
        removed = await experiment_store.erase(self._pool, tenant) + await exposure_store.erase(self._pool, tenant)
        return removed + await self.changing.publishing.erase(tenant)

    async def _list(self, asked: ExperimentsAsk) -> ExperimentsReply:
        rows = await experiment_store.experiments(self._pool, asked.tenant, asked.id, asked.state, asked.limit)
        if asked.id and rows and rows[0].state != "draft":
            rows = [msgspec.structs.replace(rows[0], look=await self.watching.look(rows[0]))]
        return ExperimentsReply(rows=rows)

    async def _flags(self, tenant: str | None) -> FlagsReply:
        rows = await experiment_store.flags(self._pool, tenant)
        sets = [one for one in await experiment_store.sets(self._pool) if tenant in (None, one.tenant)]
        return FlagsReply(
            rows=rows,
            killed=[one.tenant for one in sets if one.killed],
            holdouts={one.tenant: one.holdout for one in sets if one.holdout},
        )
