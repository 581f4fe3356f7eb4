"""Every change of experiments and flags: checked and kept under one lock, recorded, told and published.

Published last: where the broker is away, or this process is killed in between, whoever watches makes the bucket say it.
One rule: no change without who
made it and when; what evolution does by itself says why in numbers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import structlog
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.audit import PLATFORM
from collegium_contracts.experiment_requests import (
    ExperimentAct,
    ExperimentChange,
    ExperimentCreate,
    ExperimentRow,
    FlagRow,
    FlagSet,
    FlagSwitch,
    HoldoutSet,
)
from collegium_contracts.experiments import Change, RunningFlag
from collegium_contracts.state import Roster
from collegium_runtime.audit import Audit
from collegium_runtime.platform import Platform

from collegium_evolution.experiments import checking, experiment_store
from collegium_evolution.experiments.publishing import Publishing
from collegium_evolution.policies import policy_store

log = structlog.get_logger(__name__)

BY_ITSELF: Final = "evolution"
CHANGES_MAX: Final = 100
FLAGS_MAX: Final = 200
Tell = Callable[[str, str, dict[str, Any]], Awaitable[None]]


class Changing:
    """Changes experiments and flags; ``tell`` takes what operators are told."""

    def __init__(self, platform: Platform, pool: Any, audit: Audit, tell: Tell) -> None:
        self._platform = platform
        self._pool = pool
        self._audit = audit
        self._tell = tell
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self.publishing = Publishing(pool, Bucket(platform.connection, s.KV_POLICY), platform.now_ms)

    async def create(self, asked: ExperimentCreate) -> ExperimentRow:
        """Keeps a draft."""
        tenant = asked.running.tenant
        checking.check_draft(asked, await self._model_names(), await self._versions(tenant))
        now_ms = self._platform.now_ms()
        running = msgspec.structs.replace(asked.running, id="exp_" + ids.task_id(now_ms, os.urandom(10))[4:])
        row = ExperimentRow(
            running=running,
            name=asked.name,
            state="draft",
            created_at_ms=now_ms,
            by=asked.by,
            hypothesis=asked.hypothesis,
            guardrails=asked.guardrails,
            level=asked.level,
            margin=asked.margin,
            auto_stop=asked.auto_stop,
            changes=[ExperimentChange(at_ms=now_ms, by=asked.by, what=f"drafted on {checking.surface_of(running)}")],
        )
        async with self._changing() as connection:
            if await experiment_store.drafts(connection, tenant) >= checking.DRAFTS_MAX:
                text = f"at most {checking.DRAFTS_MAX} drafts of a tenant are kept"
                raise RequestRefusedError("too_many_experiments", text)
            await experiment_store.put(connection, row)
        return row

    async def act(self, asked: ExperimentAct) -> ExperimentRow:
        """Starts, ramps, stops or concludes; raises RequestRefusedError where that cannot be."""
        now_ms = self._platform.now_ms()
        async with self._changing() as connection:
            row = await self._one(connection, asked)
            changed, what = await self._changed(connection, row, asked, now_ms)
            changed = _noted(changed, ExperimentChange(at_ms=now_ms, by=asked.by, what=what, reason=asked.reason))
            await experiment_store.put(connection, changed)
            if asked.rollout and asked.winner == "candidate":
                await self._put_flag(connection, _rolled_out(changed), asked.by)
            await experiment_store.turn(connection, row.running.tenant)
        await self._follow(changed, f"experiments.{asked.act}", what, asked)
        return changed

    async def take_back(self, experiment: str, reason: str) -> ExperimentRow | None:
        """Takes a running experiment back, whose candidate does harm; none where it runs no more."""
        asked = ExperimentAct(id=experiment, act="stop", by=BY_ITSELF, reason=reason)
        now_ms = self._platform.now_ms()
        async with self._changing() as connection:
            try:
                row = await self._one(connection, asked)
            except RequestRefusedError:
                # Its tenant was erased meanwhile.
                return None
            if row.state != "running":
                return None
            what = "rolled back"
            changed = msgspec.structs.replace(row, state="rolled_back", ended_at_ms=now_ms, winner="control")
            changed = _noted(changed, ExperimentChange(at_ms=now_ms, by=BY_ITSELF, what=what, reason=reason))
            await experiment_store.put(connection, changed)
            await experiment_store.turn(connection, row.running.tenant)
        await self._follow(changed, "experiments.roll_back", what, asked)
        return changed

    async def set_flag(self, asked: FlagSet) -> FlagRow:
        """Makes a flag stand as it says; a killed one stays killed."""
        flag = asked.flag
        checking.check_flag(flag, await self._model_names(), await self._versions(flag.tenant))
        async with self._changing() as connection:
            row = await self._put_flag(connection, flag, asked.by)
            await experiment_store.turn(connection, flag.tenant)
        self._record(flag.tenant, asked.by, "flags.set", flag.name, f"share {flag.share:g}", "")
        await self._publish(flag.tenant)
        return row

    async def switch(self, asked: FlagSwitch) -> list[FlagRow]:
        """Kills, lets apply again or removes a flag, or (without a name) kills all of a tenant and lets it go again."""
        now_ms = self._platform.now_ms()
        async with self._changing() as connection:
            found: list[FlagRow] = []
            if asked.name:
                standing = [
                    row
                    for row in await experiment_store.flags(connection, asked.tenant)
                    if (row.flag.tenant, row.flag.name) == (asked.tenant, asked.name)
                ]
                if not standing:
                    raise RequestRefusedError("not_found", f"there is no flag {asked.name!r}", "name")
                if asked.to == "removed":
                    await experiment_store.remove_flag(connection, asked.tenant, asked.name)
                    found = standing
                else:
                    is_killed = asked.to == "killed"
                    found = [msgspec.structs.replace(standing[0], killed=is_killed, changed_at_ms=now_ms, by=asked.by)]
                    await experiment_store.put_flag(connection, found[0])
            elif asked.to == "removed":
                raise RequestRefusedError("invalid_value", "name the flag that is to be removed", "name")
            killed = None if asked.name else asked.to == "killed"
            await experiment_store.turn(connection, asked.tenant, killed=killed)
        self._record(asked.tenant, asked.by, f"flags.{asked.to}", asked.name or "*", asked.to, asked.reason)
        await self._publish(asked.tenant)
        return found

    async def hold_out(self, asked: HoldoutSet) -> None:
        """Keeps a share of units out of everything."""
        if not 0 <= asked.share <= 0.5:
            raise RequestRefusedError("invalid_value", "a holdout is a share from 0 to .5", "share")
        async with self._changing() as connection:
            await experiment_store.turn(connection, asked.tenant, holdout=asked.share)
        self._record(asked.tenant, asked.by, "experiments.holdout", "", f"share {asked.share:g}", "")
        await self._publish(asked.tenant)

    @asynccontextmanager
    async def _changing(self) -> AsyncGenerator[Any]:
        async with self._pool.acquire() as connection, connection.transaction():
            await experiment_store.lock(connection)
            yield connection

    async def _one(self, connection: Any, asked: ExperimentAct) -> ExperimentRow:
        rows = await experiment_store.experiments(connection, None, asked.id)
        if not rows or asked.tenant not in (None, rows[0].running.tenant):
            raise RequestRefusedError("not_found", "there is no experiment of this id", "id")
        return rows[0]

    async def _changed(
        self, connection: Any, row: ExperimentRow, asked: ExperimentAct, now_ms: int
    ) -> tuple[ExperimentRow, str]:
        """Returns an experiment as it is after an act, and what that did."""
        one = row.running
        match asked.act:
            case "start":
                flags = await experiment_store.flags(connection)
                checking.check_start(row, await experiment_store.running(connection), flags)
                await _check_versions(connection, one.tenant, (one.control, one.candidate))
                return msgspec.structs.replace(row, state="running", started_at_ms=now_ms), "started"
            case "ramp":
                checking.check_ramp(row, asked.share)
                # The arms' tasks stay what they were, so their revision does too.
                ramped = msgspec.structs.replace(one, share=asked.share)
                return msgspec.structs.replace(row, running=ramped), f"share {one.share:g} to {asked.share:g}"
            case "stop":
                if row.state not in ("draft", "running"):
                    raise RequestRefusedError("experiment_state", f"experiment {one.id} is {row.state} already")
                return msgspec.structs.replace(row, state="stopped", ended_at_ms=now_ms), "stopped"
            case "conclude":
                if row.state not in ("running", "stopped"):
                    raise RequestRefusedError("experiment_state", f"experiment {one.id} is {row.state}")
                if asked.winner is None:
                    raise RequestRefusedError("invalid_value", "say which arm won: control or candidate", "winner")
                ended = row.ended_at_ms or now_ms
                concluded = msgspec.structs.replace(row, state="concluded", ended_at_ms=ended, winner=asked.winner)
                rolled = ", rolled out" if asked.rollout and asked.winner == "candidate" else ""
                return concluded, f"concluded for {asked.winner}{rolled}"

    async def _put_flag(self, connection: Any, flag: RunningFlag, by: str) -> FlagRow:
        await _check_versions(connection, flag.tenant, (flag.change,))
        rows = [row for row in await experiment_store.flags(connection) if row.flag.tenant == flag.tenant]
        standing = next((row for row in rows if row.flag.name == flag.name), None)
        if standing is None and len(rows) >= FLAGS_MAX:
            raise RequestRefusedError("too_many_experiments", f"a tenant has at most {FLAGS_MAX} flags")
        applying = [row.flag.change for row in rows if not row.killed and row.flag.name != flag.name]
        checking.check_instructions([*applying, flag.change])
        revision = standing.flag.revision + 1 if standing is not None else 1
        row = FlagRow(
            flag=msgspec.structs.replace(flag, revision=revision),
            killed=standing is not None and standing.killed,
            changed_at_ms=self._platform.now_ms(),
            by=by,
        )
        await experiment_store.put_flag(connection, row)
        return row

    async def _follow(self, row: ExperimentRow, act: str, what: str, asked: ExperimentAct) -> None:
        """Records and tells a change, then publishes it."""
        one = row.running
        self._record(one.tenant, asked.by, act, one.id, what, asked.reason)
        if asked.by == BY_ITSELF:
            about = {"id": one.id, "tenant": one.tenant, "name": row.name, "what": what, "reason": asked.reason}
            await self._tell(f"{one.id}.{row.state}", f"experiment.{row.state}", about)
        await self._publish(one.tenant)

    async def _publish(self, tenant: str) -> None:
        try:
            await self.publishing.publish(tenant)
        except BusError as error:
            # It is kept, recorded and told: mending publishes it as soon as that can be done.
            log.error("experiments not published, left to mending", tenant=tenant, error=str(error))

    def _record(self, tenant: str, by: str, act: str, about: str, what: str, reason: str) -> None:
        """Notes a change; those that somebody asked for stand in the audit trail by the door that they came through."""
        if by == BY_ITSELF:
            actor, details = f"service:{BY_ITSELF}", {"what": what}
            self._audit.record(
                self._audit.entry(tenant or PLATFORM, actor, act, object=about, reason=reason, details=details)
            )
        log.info("experiments changed", tenant=tenant, act=act, about=about, what=what)

    async def _model_names(self) -> set[str]:
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        return {model.name for model in roster.models} if isinstance(roster, Roster) else set()

    async def _versions(self, tenant: str) -> set[int]:
        if not tenant:
            return set()
        return {row.version for row in await policy_store.history(self._pool, tenant, policy_store.LIST_MAX)}


async def _check_versions(connection: Any, tenant: str, changes: Sequence[Change]) -> None:
    """Raises RequestRefusedError where a version of a policy was pruned since it was drafted."""
    for version in experiment_store.versions_of(changes):
        if await policy_store.version(connection, tenant, version) is None:
            text = f"{tenant} has no version {version} of a policy any more; see collegium policy history"
            raise RequestRefusedError("not_found", text)


def _noted(row: ExperimentRow, change: ExperimentChange) -> ExperimentRow:
    return msgspec.structs.replace(row, changes=[*row.changes, change][-CHANGES_MAX:])


def _rolled_out(row: ExperimentRow) -> RunningFlag:
    """Returns the flag that gives everybody on an experiment's surface its candidate's change."""
    one = row.running
    return RunningFlag(
        name=one.id,
        kind=one.kind,
        change=one.candidate,
        tenant=one.tenant,
        domain=one.domain,
        model=one.model,
        unit=one.unit,
    )
