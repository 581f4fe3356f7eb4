"""The step of a round that gives models their ranks. One rule: what an earlier try of it decided is done first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import asyncpg
import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.evolution import RankChangeRow
from collegium_contracts.ranks import earned
from collegium_contracts.state import ModelRecord, Roster
from collegium_learning.ranks.decisions import Decision, Evidence, Rules
from collegium_learning.ranks.pairs import TIE_WITHIN
from collegium_runtime.platform import Platform

from collegium_evolution.ranks import change_store, pair_store
from collegium_evolution.ranks.changing import BY_ITSELF, Changing, change_of
from collegium_evolution.ranks.pair_store import Changed
from collegium_evolution.ranks.weighing import decide, everywhere, lately, weigh
from collegium_evolution.students import student_store

LINES_MAX: Final = 200
SHADOW_DAYS: Final = 7


class RankRounds:
    """Decides about ranks and changes them; ``rules`` are read at every round."""

    def __init__(
        self, platform: Platform, pool: asyncpg.Pool, models: Bucket, changing: Changing, rules: Callable[[], Rules]
    ) -> None:
        self._platform = platform
        self._pool = pool
        self._models = models
        self._changing = changing
        self._rules = rules

    async def shadow(self, _cycle: str) -> list[str]:
        """Returns a line for each model of how often it was compared lately; probes run by themselves."""
        since_ms = self._platform.now_ms() - SHADOW_DAYS * 86_400_000
        rows = await pair_store.by_kind(self._pool, since_ms)
        return [f"{model}: {count} pairs by {kind} in {SHADOW_DAYS} days" for model, kind, count in rows][:LINES_MAX]

    async def run(self, cycle: str) -> list[str]:
        """Returns a line for each change and for what nearly changed; raises BusError where the router is away.

        What an earlier try of this round had changed already is told as it was.
        """
        resumed = await self._changing.resume(await self._roster())
        lines = [_line(change) for change in resumed if change.cycle != cycle]
        lines += [_line(change) for change in await change_store.of_cycle(self._pool, cycle)]
        now_ms = self._platform.now_ms()
        await pair_store.prune(self._pool, now_ms)
        models = await self._roster()
        decisions = await self.decisions(models, now_ms)
        for one in decisions:
            if one.verdict == "stay":
                lines.append(f"{_whose(one)}: {one.reason}")
                continue
            if not self._platform.settings.evolution.ranks.automatic:
                lines.append(f"{_whose(one)}: would go from {one.reason}")
                continue
            by_name = {model.name: model for model in models}
            before = earned(by_name[one.model], one.tenant, one.domain)
            made = ids.rank_change_id(cycle, one.model, one.domain, one.tenant)
            try:
                lines.append(_line(await self._changing.apply(change_of(one, made, cycle, now_ms, before))))
            except RequestRefusedError as error:
                lines.append(f"{_whose(one)}: refused, {error.code}: {one.reason}")
        lines += await self._everywhere(cycle, decisions, now_ms)
        return lines[:LINES_MAX]

    async def decisions(self, models: list[ModelRecord], now_ms: int) -> list[Decision]:
        """Returns what is decided about every model in every place, by what is known now."""
        rules = self._rules()
        since_ms = now_ms - pair_store.KEPT_MS
        changes = await change_store.last_changes(self._pool)
        # A fine-tuned model is measured by what it cannot have been trained on: what came after it was made.
        changes += [Changed(*one) for one in await student_store.made(self._pool, "endpoint")]
        counted = await pair_store.counted(self._pool, since_ms, TIE_WITHIN, changes)
        known: list[Evidence] = []
        for one in weigh(models, counted):
            evidence = one.evidence
            if one.beside and evidence.rank != "student":
                changed = max(
                    (
                        change.at_ms
                        for change in changes
                        if change.model == evidence.model
                        and change.domain in (None, evidence.domain)
                        and change.tenant in ("", evidence.tenant)
                    ),
                    default=since_ms,
                )
                rows = await pair_store.latest(
                    self._pool, evidence.model, evidence.domain, one.beside, max(since_ms, changed), TIE_WITHIN
                )
                fallen = lately(rows, evidence.tenant, rules.margin)
                evidence = msgspec.structs.replace(evidence, lately=fallen if math.isfinite(fallen) else 1e300)
            known.append(evidence)
        return decide(known, models, rules)

    async def _everywhere(self, cycle: str, decisions: list[Decision], now_ms: int) -> list[str]:
        lines: list[str] = []
        if not self._platform.settings.evolution.ranks.automatic:
            return lines
        for model in await self._roster():
            compared = {one.domain for one in decisions if one.model == model.name and not one.tenant}
            rank = everywhere(model, compared)
            if rank is None:
                continue
            change = RankChangeRow(
                id=ids.rank_change_id(cycle, model.name, None, ""),
                model=model.name,
                before=model.rank,
                after=rank,
                ground="better",
                at_ms=now_ms,
                by=BY_ITSELF,
                reason=f"{model.rank} to {rank} overall: earned in every domain in which it was compared",
                cycle=cycle,
            )
            lines.append(_line(await self._changing.apply(change)))
        return lines

    async def _roster(self) -> list[ModelRecord]:
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        return list(roster.models) if isinstance(roster, Roster) else []


def _line(change: RankChangeRow) -> str:
    return f"{_whose(change)}: {change.reason}"


def _whose(one: RankChangeRow | Decision) -> str:
    """Names a model and for whom: a line that names no tenant would not be found when one is erased."""
    return f"{one.model} for {one.tenant}" if one.tenant else one.model
