"""Bodies of the admin routes about projects, keys, limits and budgets, and how their texts are read. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from collegium_contracts.identity import BudgetSet
from collegium_contracts.state import BudgetScope, BudgetWindow, RateLimits

from collegium_gateway.errors import ApiError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([0-9]{1,8})([smhdw])\Z")
_CALENDAR: dict[str, BudgetWindow] = {"calendar_day": "calendar_day", "calendar_month": "calendar_month"}
INT64_MAX = 2**63 - 1


class TenantPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PATCH /v1/admin/tenants/{id}``; what is left out stays. An empty ``pool`` takes its own pool away.

    ``learning_collect``: its work may be learned from; what was learned answers for ``learning_grants`` too.
    """

    tier: str | None = None
    cache_stale: bool | None = None
    pool: str | None = None
    learning_collect: bool | None = None
    learning_grants: list[str] | None = None


class ProjectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/projects``."""

    tenant: str
    id: str
    name: str = ""


class LimitsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v1/admin/tenants/{id}/limits`` and ``/v1/admin/keys/{id}/limits``; what is left out is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_window: int | None = None
    token_window: str = "5h"  # noqa: S105 - a duration
    concurrency: int | None = None


class BudgetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v1/admin/budgets/{tenant}/{id}``, and a new key's own budget.

    ``window`` is a rolling one such as ``30d``, or ``calendar_day`` or ``calendar_month`` (UTC).
    """

    usd: str
    scope: BudgetScope = "tenant"
    of: str = ""
    window: str = "30d"
    alert_percents: list[int] = []


class RotateKeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/keys/{id}/rotate``: how long the key itself still lets in."""

    grace: str = "1d"


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/keys``; ``models`` (empty: all) are those that it may ask, ``expires_at`` is in RFC 3339."""

    tenant: str = ""
    project: str = "default"
    name: str = ""
    scopes: list[str] = msgspec.field(default_factory=lambda: ["chat", "tasks", "usage"])
    role: Literal["", "owner", "operator", "auditor", "member"] = ""
    models: list[str] = []
    expires_at: str | None = None
    limits: LimitsRequest | None = None
    budget: BudgetRequest | None = None


decode_tenant_patch = msgspec.json.Decoder(TenantPatch)
decode_project = msgspec.json.Decoder(ProjectRequest)
decode_limits = msgspec.json.Decoder(LimitsRequest)
decode_budget = msgspec.json.Decoder(BudgetRequest)
decode_rotate_key = msgspec.json.Decoder(RotateKeyRequest)
decode_key = msgspec.json.Decoder(KeyRequest)


def seconds_of(text: str, param: str) -> int:
    """Reads a duration such as ``5h``; raises ApiError."""
    found = _DURATION.match(text)
    if found is None:
        raise ApiError("invalid_value", f"{param} must be a duration such as 5h or 30d", param=param)
    return int(found[1]) * _SECONDS[found[2]]


def limits_of(asked: LimitsRequest | None) -> RateLimits | None:
    """Returns limits as billing is asked for them; raises ApiError for what is no duration or no count."""
    if asked is None:
        return None
    names = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_window", "concurrency")
    values = {name: _fitting(getattr(asked, name), name) for name in names}
    return RateLimits(**values, token_window_seconds=seconds_of(asked.token_window, "token_window"))  # pyright: ignore[reportArgumentType] - counts by name


def budget_of(asked: BudgetRequest, tenant: str, budget_id: str) -> BudgetSet:
    """Returns a budget as billing is asked for it; raises ApiError for what is no window."""
    calendar = _CALENDAR.get(asked.window)
    fields: dict[str, Any] = (
        {"window": calendar} if calendar else {"window_seconds": seconds_of(asked.window, "window")}
    )
    return BudgetSet(
        tenant=tenant,
        budget=budget_id,
        usd=asked.usd,
        scope=asked.scope,
        of=asked.of,
        alert_percents=[_fitting(percent, "alert_percents") or 0 for percent in asked.alert_percents],
        **fields,
    )


def moment_ms(text: str | None, param: str) -> int:
    """Reads a time in RFC 3339 as Unix ms, none as 0; raises ApiError."""
    if text is None:
        return 0
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ApiError("invalid_value", f"{param} must be a time in RFC 3339", param=param) from None


def limits_view(limits: RateLimits | None) -> dict[str, Any] | None:
    """Returns limits as they are shown."""
    return None if limits is None else {name: getattr(limits, name) for name in RateLimits.__struct_fields__}


def _fitting(value: int | None, param: str) -> int | None:
    """Refuses what no message can carry; the bounds themselves are billing's."""
    if value is not None and not -INT64_MAX <= value <= INT64_MAX:
        raise ApiError("invalid_value", f"{param} is out of bounds", param=param)
    return value
