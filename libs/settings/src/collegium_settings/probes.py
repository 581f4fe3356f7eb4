"""The section of probes: settled work that is asked again to learn from it.

One rule: nothing is asked again unless a share and the tenants who allow it are stated.
"""

from __future__ import annotations

from typing import Literal

from collegium_settings.scalars import DurationSeconds, Flag, Identifier, Ratio
from collegium_settings.section import Section


class ProbeSettings(Section, frozen=True, kw_only=True):
    """How much is asked again: ``audit_share`` of answers that no teacher gave is asked of a teacher, and
    ``shadow_share`` of teachers' answers of a cheaper model.

    ``tenants`` are those that allow it (``all_tenants``: all do). Together probes cost at most ``budget_share`` of what
    work was charged; ``account`` says who is charged for them. ``delay`` is how long after a task its probe is made.
    """

    audit_share: Ratio = 0.0
    shadow_share: Ratio = 0.0
    budget_share: Ratio = 0.05
    account: Literal["operator", "tenant"] = "operator"
    tenants: tuple[Identifier, ...] = ()
    all_tenants: Flag = False
    delay_seconds: DurationSeconds = 60

    def allows(self, tenant: str) -> bool:
        """Whether a tenant's work may be asked again."""
        return self.all_tenants or tenant in self.tenants
