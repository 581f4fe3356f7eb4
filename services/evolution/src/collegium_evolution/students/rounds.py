"""The step of a round that spawns students: for gaps first, then where most is asked.

A domain is taken up once it has enough verified samples, and again once they have doubled; whether its answers are
labels at all is seen when they are opened. One rule: a round begins few students, and none for a tenant whose tier has
none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import asyncpg
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.students import StudentRow, StudentSpawn
from collegium_runtime.platform import Platform

from collegium_evolution.gaps import gap_store
from collegium_evolution.students import held_out_store
from collegium_evolution.students.registering import FEATURE
from collegium_evolution.students.sample_store import Many, SampleStore
from collegium_evolution.students.spawning import Students
from collegium_evolution.students.student_store import StudentStore

# Of a gap so many answers are enough to choose examples from.
PROMPT_MIN: Final = 50
# Below it a head is hardly better than what is asked anyway.
VERIFIED_MIN: Final = 200
PER_ROUND_MAX: Final = 4
GAPS_MAX: Final = 500
BY: Final = "evolution"


class StudentRounds:
    """Spawns students."""

    def __init__(
        self, platform: Platform, pool: asyncpg.Pool, samples: SampleStore, kept: StudentStore, students: Students
    ) -> None:
        self._platform = platform
        self._pool = pool
        self._samples = samples
        self._kept = kept
        self._students = students

    async def run(self, _cycle: str) -> list[str]:
        """Begins students and returns a line for each."""
        settings = self._platform.settings
        examined = [one.line for one in await held_out_store.report(self._pool)]
        if not settings.evolution.auto_spawn_students:
            return ["students are spawned on demand only", *examined]
        lines = await self._made_anew() + examined
        known = [one.row for one in await self._kept.rows(None)]
        many = await self._samples.many(PROMPT_MIN)
        gaps: set[tuple[str, str]] = set()
        for tenant in sorted({one.tenant for one in many}):
            gaps.update((tenant, gap.domain) for gap in await gap_store.gaps(self._pool, tenant, GAPS_MAX))
        tiers = {name for name, tier in settings.tiers.items() if FEATURE in tier.features}
        enough = [one for one in many if one.verified >= VERIFIED_MIN]
        heads, prompts = wanted(enough, known, gaps, tiers), prompts_wanted(many, known, gaps, tiers)
        due = [StudentSpawn(tenant=one.tenant, domain=one.domain, by=BY) for one in heads]
        due += [StudentSpawn(tenant=one.tenant, domain=one.domain, kind="prompt", by=BY) for one in prompts]
        verified = {(one.tenant, one.domain): one.verified for one in many}
        for asked in sorted(due, key=lambda one: (one.tenant, one.domain) not in gaps)[:PER_ROUND_MAX]:
            place = (asked.tenant, asked.domain)
            try:
                row = await self._students.spawn(asked)
            except RequestRefusedError as error:
                lines.append(f"{asked.tenant}/{asked.domain}: {error.code}")
                continue
            lines.append(f"{row.model}: {verified[place]} verified samples")
        return lines

    async def _made_anew(self) -> list[str]:
        """Makes prompts anew that show what is no verified sample any more; those that cannot be are retired."""
        lines: list[str] = []
        outdated = await self._kept.outdated(self._samples.confidence_min)
        for row in [one.row for one in await self._kept.rows(None) if one.row.model in outdated]:
            try:
                await self._students.spawn(
                    StudentSpawn(tenant=row.tenant, domain=row.domain, kind="prompt", by=BY, base=row.base)
                )
                lines.append(f"{row.model}: made anew, an answer that it shows is no sample any more")
            except RequestRefusedError as error:
                await self._students.retire(row.model, row.tenant)
                lines.append(f"{row.model}: retired, {error.code}")
        return lines


def wanted(
    many: Sequence[Many], known: Sequence[StudentRow], gaps: Collection[tuple[str, str]], tiers: Collection[str]
) -> list[Many]:
    """Returns the domains that are worth a student now, gaps first, then those with most samples. Pure."""
    standing = {(row.tenant, row.domain): row for row in known if row.kind == "head"}

    def is_due(one: Many) -> bool:
        row = standing.get((one.tenant, one.domain))
        if one.tier not in tiers or (row is not None and row.state in ("training", "retired")):
            return False
        return row is None or one.verified >= 2 * max(1, row.samples)

    due = [one for one in many if is_due(one)]
    return sorted(due, key=lambda one: ((one.tenant, one.domain) not in gaps, -one.verified, one.tenant, one.domain))


def prompts_wanted(
    many: Sequence[Many], known: Sequence[StudentRow], gaps: Collection[tuple[str, str]], tiers: Collection[str]
) -> list[Many]:
    """Returns the domains that are worth a prompt now, gaps first, then those where most is asked. Pure.

    A gap with PROMPT_MIN verified samples, and a domain where so much is asked that its answers cost; none where a head
    serves or is being made, and where enough samples stand for a head only once those were seen to make none.
    """
    rows = {(row.tenant, row.domain, row.kind): row for row in known}

    def is_due(one: Many) -> bool:
        place = (one.tenant, one.domain)
        head, prompt = rows.get((*place, "head")), rows.get((*place, "prompt"))
        if one.tier not in tiers or (place not in gaps and one.verified < VERIFIED_MIN):
            return False
        if one.verified >= VERIFIED_MIN and (head is None or head.state in ("serving", "training")):
            return False
        if prompt is not None and prompt.state in ("training", "retired"):
            return False
        return prompt is None or one.verified >= 2 * max(1, prompt.samples)

    due = [one for one in many if is_due(one)]
    return sorted(due, key=lambda one: ((one.tenant, one.domain) not in gaps, -one.verified, one.tenant, one.domain))
