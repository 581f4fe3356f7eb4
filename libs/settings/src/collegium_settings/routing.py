"""The section of routing: how models are chosen, and what tenants and projects are to spend in a period.

One rule: a target of spending moves who answers and refuses nothing; what refuses is a budget.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from collegium_contracts.parts import AnswerKind, Rank
from msgspec import field

from collegium_settings.scalars import DurationSeconds, Ratio, Usd, matching, whole
from collegium_settings.section import Section

_NAME = re.compile(r"[a-z0-9-]{1,40}(/[a-z0-9-]{1,40})?\Z")
SpendName = Annotated[str, matching(_NAME, "a tenant, or tenant/project")]


class SpendTarget(Section, frozen=True, kw_only=True):
    """What is to be charged in each period for settled work; above it cheaper answers are preferred."""

    usd: Usd
    period_seconds: DurationSeconds = 86_400


NovelPlan = Literal["single", "panel", "cascade"]
# As few as can agree, as many as any panel may have.
Members = Annotated[int, whole(2, 9)]


class RoutingSettings(Section, frozen=True, kw_only=True):
    """How models are chosen; ``shares`` are the wanted shares by rank.

    A cascade asks on while it is less confident than ``cascade_confidence``, where its request states no
    ``quality_min`` and no threshold was learned that loses at most ``cascade_loss_max`` against the teachers.
    ``answer_types`` says by domain how answers are compared where a request does not. A cheaper model answers where it
    surely loses at most ``tolerance``; those of which that is not sure yet get at most ``trial_share`` of tasks.
    ``spend`` has targets by tenant, or by tenant/project.

    ``novel`` is the plan of questions unlike anything known whose client left the plan open, ``novel_tenants`` that of
    single tenants; a panel of them has ``novel_members`` at most.
    """

    quality_floor: Ratio | None = None
    shares: dict[Rank, Ratio] = field(default_factory=dict[Rank, float])
    exploration: Ratio = 0.03
    tolerance: Ratio = 0.04
    trial_share: Ratio = 0.2
    novel: NovelPlan = "single"
    novel_tenants: dict[str, NovelPlan] = field(default_factory=dict[str, NovelPlan])
    novel_members: Members = 3
    spend: dict[SpendName, SpendTarget] = field(default_factory=dict[str, SpendTarget])
    cascade_confidence: Ratio = 0.7
    cascade_loss_max: Ratio = 0.02
    answer_types: dict[str, AnswerKind] = field(default_factory=dict[str, AnswerKind])

    def novel_of(self, tenant: str) -> NovelPlan:
        """Returns the plan of a tenant's novel questions."""
        return self.novel_tenants.get(tenant, self.novel) if self.novel_tenants else self.novel
