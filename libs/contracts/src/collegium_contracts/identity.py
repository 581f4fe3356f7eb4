"""Questions about tenants, projects, keys, limits and budgets that gateways ask of billing.

The gateway has checked who asks and what the asker's role permits; :class:`Reach` carries what of that only billing can
decide, because only billing knows whose a key is and what role it has. One rule: what lies outside the asker's reach
is answered as if it did not exist.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.messages import Message
from collegium_contracts.state import BudgetRecord, BudgetScope, BudgetWindow, RateLimits

TenantState = Literal["active", "suspended", "deleted"]


Role = Literal["owner", "operator", "auditor", "member"]
OPERATOR_TENANT = "operator"
# Roles that reach beyond one tenant: given to keys and tokens of the operator's tenant alone.
PLATFORM_ROLES = ("owner", "operator", "auditor")


def role_of(tenant: str, role: str) -> Role:
    """Returns what the scope ``admin`` means for a key or token: its own role, or that of its tenant.

    Outside the operator's tenant everybody is a member, whatever a record or a token says.
    """
    if tenant != OPERATOR_TENANT:
        return "member"
    match role:
        case "operator" | "auditor" | "member":
            return role
        case "" | "owner":
            return "owner"
        case _:
            return "member"


class Reach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an asker may touch: one ``tenant`` (none: all), and whether keys of the role owner are among it.

    ``scopes`` (none: all) are the most that it may give to a key.
    """

    tenant: str | None = None
    owners: bool = True
    scopes: list[str] | None = None


class TenantChange(Message, frozen=True, kw_only=True):
    """Asks billing to change a tenant; none leaves as it is. A deleted one never comes back.

    ``pool`` is a worker pool of its own (empty: none), which its tier must have. ``gates`` are the rules that its
    requests pass, and ``verified`` is what the operator vouches for of all its users.
    ``collects`` says whether its work may be learned from, and ``grants`` for which others what was learned answers.
    """

    tenant: str
    tier: str | None = None
    state: TenantState | None = None
    stale_answers: bool | None = None
    pool: str | None = None
    gates: list[str] | None = None
    verified: dict[str, int] | None = None
    collects: bool | None = None
    grants: list[str] | None = None


class ProjectCreate(Message, frozen=True, kw_only=True):
    """Asks billing for a new project of a tenant; refused with ``already_exists`` where it stands."""

    tenant: str
    project: str
    name: str = ""


class ProjectArchive(Message, frozen=True, kw_only=True):
    """Asks billing to archive a project, which takes no new keys then, or to take it up again."""

    tenant: str
    project: str
    archived: bool = True


class ProjectList(Message, frozen=True, kw_only=True):
    """Asks billing for the projects of a tenant (all tenants when none)."""

    tenant: str | None = None


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One project as shown; ``keys`` counts the live ones."""

    id: str
    tenant: str
    name: str
    created_at_ms: int
    archived_at_ms: int | None = None
    keys: int = 0


class ProjectsReply(Message, frozen=True, kw_only=True):
    """The projects concerned."""

    projects: list[ProjectRow]


class KeyRotate(Message, frozen=True, kw_only=True):
    """Asks billing for a new key with the rights of one that stands, which ends after ``grace_seconds``."""

    key_id: str
    grace_seconds: int = 86_400
    reach: Reach = Reach()


class LimitsSet(Message, frozen=True, kw_only=True):
    """Asks billing to set the rate limits of a tenant or, with ``key_id``, of a key; none removes them."""

    tenant: str = ""
    key_id: str = ""
    limits: RateLimits | None = None
    reach: Reach = Reach()


class LimitsReply(Message, frozen=True, kw_only=True):
    """The limits that stand now; ``key_id`` is empty for a tenant's."""

    tenant: str
    key_id: str = ""
    limits: RateLimits | None = None


class BudgetSet(Message, frozen=True, kw_only=True):
    """Asks billing to set a budget, new or standing; ``usd`` is a decimal string of dollars, checked by billing."""

    tenant: str
    budget: str = ""
    usd: str
    scope: BudgetScope = "tenant"
    of: str = ""
    window: BudgetWindow = "rolling"
    window_seconds: int = 30 * 86_400
    alert_percents: list[int] = []


class BudgetDelete(Message, frozen=True, kw_only=True):
    """Asks billing to delete a budget."""

    tenant: str
    budget: str


class BudgetList(Message, frozen=True, kw_only=True):
    """Asks billing for budgets: one, those of a tenant, or all."""

    tenant: str | None = None
    budget: str | None = None


class BudgetRow(msgspec.Struct, frozen=True, kw_only=True):
    """One budget as shown."""

    tenant: str
    budget: BudgetRecord
    changed_at_ms: int


class BudgetsReply(Message, frozen=True, kw_only=True):
    """The budgets concerned."""

    budgets: list[BudgetRow]


class KeysUsed(Message, frozen=True, kw_only=True):
    """Tells billing which keys a gateway let in lately, and the time up to which that holds."""

    keys: list[str]
    at_ms: int


class Noted(Message, frozen=True, kw_only=True):
    """What was told is kept."""


IdentityRequest = (
    TenantChange
    | ProjectCreate
    | ProjectArchive
    | ProjectList
    | KeyRotate
    | LimitsSet
    | BudgetSet
    | BudgetDelete
    | BudgetList
    | KeysUsed
)
IdentityReply = ProjectsReply | LimitsReply | BudgetsReply | Noted
