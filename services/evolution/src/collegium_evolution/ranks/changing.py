"""A decision becomes the roster's: kept as decided, asked of the router, kept as applied, and told.

Killed anywhere in between, the next round goes on with what was decided here and not applied; asking the router again
changes nothing. What an operator asked for is never done later: who asked heard that it failed. One rule: the roster
never holds a rank that no row here explains, but the one that the configuration gave.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.audit import PLATFORM
from collegium_contracts.evolution import (
    ModelSetReply,
    RankChangeAsk,
    RankChangeRow,
    RankRollbackAsk,
    RankSet,
)
from collegium_contracts.parts import Rank
from collegium_contracts.ranks import earned
from collegium_contracts.state import ModelRecord
from collegium_learning.ranks.decisions import Decision
from collegium_runtime.audit import Audit
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_evolution.ranks import change_store

log = structlog.get_logger(__name__)

BY_ITSELF: Final = "evolution"
# What operators ask for, and hear of at once.
_ASKED: Final = ("operator", "rollback")
# Rollbacks that are looked through for the change before them.
DEPTH_MAX: Final = 200
Tell = Callable[[str, str, dict[str, Any]], Awaitable[None]]


class Changing:
    """Changes ranks; ``tell`` takes what operators are told: an id, a kind and what happened."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, audit: Audit, tell: Tell) -> None:
        self._platform = platform
        self._pool = pool
        self._audit = audit
        self._tell = tell
        self._demotions = platform.metrics.counter(names.METRIC_DEMOTIONS, "Ranks that models lost by their answers")
        self._changes = platform.metrics.counters(
            names.METRIC_RANK_CHANGES, "Changes of models' ranks by why", ("ground",)
        )

    async def apply(self, change: RankChangeRow) -> RankChangeRow:
        """Makes a change and returns it with what became of it; the same id again changes nothing.

        Raises BusError where the router does not answer, RequestRefusedError where it refuses.
        """
        await change_store.add(self._pool, msgspec.structs.replace(change, state="decided"))
        asked = RankSet(
            model=change.model, rank=change.after, domain=change.domain, tenant=change.tenant, change=change.id
        )
        try:
            reply = await ask(self._platform.connection, s.SVC_ROUTER_MODEL, asked, ModelSetReply)
        except RequestRefusedError as error:
            refused = msgspec.structs.replace(change, state="refused")
            await change_store.settle(self._pool, refused)
            log.warning("rank not changed", model=change.model, domain=change.domain, code=error.code)
            raise
        failpoint("evolution.after-rank")
        # Asked again, the router has it already, and what applied before is what was noted then.
        before = reply.before if reply.is_new or change.before is None else change.before
        applied = msgspec.structs.replace(change, state="applied", before=before)
        await change_store.settle(self._pool, applied)
        await self._told(applied)
        return applied

    async def resume(self, models: Sequence[ModelRecord] = ()) -> list[RankChangeRow]:
        """Goes on with what was decided before this process began; ``models`` are the roster.

        What an operator asked for is given up, and so is what a later change went before; but an operator's that the
        roster holds, whose reply was lost, is noted as applied.
        """
        by_name = {model.name: model for model in models}
        found: list[RankChangeRow] = []
        for change, is_late in await change_store.decided(self._pool):
            is_asked = change.ground in _ASKED
            if is_late or (is_asked and not _stands(change, by_name.get(change.model))):
                await change_store.refuse(self._pool, change.id)
                log.warning("change of a rank given up", change=change.id, model=change.model, ground=change.ground)
                continue
            try:
                found.append(await self.apply(change))
            except RequestRefusedError:
                continue
        return found

    async def set(self, asked: RankChangeAsk, change_id: str, now_ms: int) -> RankChangeRow:
        """Gives a model the rank that an operator wants."""
        return await self.apply(
            RankChangeRow(
                id=change_id,
                model=asked.model,
                before=None,
                after=asked.rank,
                ground="operator",
                at_ms=now_ms,
                domain=asked.domain,
                tenant=asked.tenant,
                by=asked.by,
                reason=asked.reason,
            )
        )

    async def roll_back(self, asked: RankRollbackAsk, change_id: str, now_ms: int) -> RankChangeRow:
        """Takes the newest change that stands in a place back; raises RequestRefusedError where there is none."""
        rows = await change_store.standing(self._pool, asked.model, asked.domain, asked.tenant, DEPTH_MAX)
        change = to_undo(rows)
        if change is None:
            text = f"no change of the rank of {asked.model!r} stands there"
            raise RequestRefusedError("nothing_to_roll_back", text, "model")
        return await self.apply(
            RankChangeRow(
                id=change_id,
                model=asked.model,
                before=change.after,
                after=change.before,
                ground="rollback",
                at_ms=now_ms,
                domain=asked.domain,
                tenant=asked.tenant,
                by=asked.by,
                reason=asked.reason or f"takes {change.id} back",
            )
        )

    async def _told(self, change: RankChangeRow) -> None:
        place = {"domain": "*" if change.domain is None else change.domain, "after": change.after or "", "odds": ""}
        if change.odds:
            place["odds"] = f"{change.odds:.4g}"
        self._changes[change.ground].inc()
        if change.ground in ("worse", "worse_lately"):
            self._demotions.inc()
        log.info("rank changed", model=change.model, ground=change.ground, reason=change.reason, **place)
        actor = f"service:{BY_ITSELF}" if change.by in ("", BY_ITSELF) else change.by
        entry = self._audit.entry(
            change.tenant or PLATFORM, actor, "models.rank", object=change.model, reason=change.reason, details=place
        )
        # The change's own id, so that one which is told again is sealed once.
        self._audit.record(msgspec.structs.replace(entry, id=f"aud_{change.id}"))
        await self._tell(change.id, "rank.changed", msgspec.to_builtins(change))


def _stands(change: RankChangeRow, model: ModelRecord | None) -> bool:
    if model is None:
        return False
    rank = model.rank if change.domain is None else earned(model, change.tenant, change.domain)
    return rank == change.after


def change_of(one: Decision, change_id: str, cycle: str, now_ms: int, before: Rank | None) -> RankChangeRow:
    """Returns the change that a decision asks for; ``before`` is the rank that was earned exactly there, if any."""
    ground = one.ground or "better"
    return RankChangeRow(
        id=change_id,
        model=one.model,
        before=before,
        after=one.after,
        ground=ground,
        at_ms=now_ms,
        domain=one.domain,
        tenant=one.tenant,
        by=BY_ITSELF,
        reason=one.reason,
        cycle=cycle,
        odds=one.odds,
        needed=one.needed,
        wins=one.pairs.wins,
        losses=one.pairs.losses,
        ties=one.pairs.ties,
        tenants=one.tenants,
        mean_score=one.pairs.mean_score,
        price_ratio=one.price_ratio,
    )


def to_undo(rows: list[RankChangeRow]) -> RankChangeRow | None:
    """Returns the newest change that was not taken back; ``rows`` are those of one place, the newest first."""
    undone = 0
    for row in rows:
        if row.ground == "rollback":
            undone += 1
        elif undone:
            undone -= 1
        else:
            return row
    return None
