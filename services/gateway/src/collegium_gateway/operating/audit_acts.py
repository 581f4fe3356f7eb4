"""What an administrative request is called in the audit trail, and what of it may be told there. Pure.

One rule: of a request's body only fields that are named here are told, so that no secret and no content gets in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec
from collegium_contracts.audit import Outcome, bounded_details
from collegium_contracts.ids import TENANT_ID

PREFIX: Final = "/v1/admin/"
# Acts outside of administration that change what a tenant trusts.
OTHERS: Final = {"/v1/webhooks/secret/rotate": "webhooks.rotate_secret", "/v1/cache": "cache.clear"}

_METHODS: Final = {"POST": "create", "PUT": "set", "PATCH": "change", "DELETE": "delete"}
_TOLD: Final = frozenset(
    {
        "alert_percents", "budget", "charge", "cost", "dry_run", "erase", "expires_at", "filter", "grace_seconds", "id",
        "ids", "limit", "limits", "model", "models", "month", "name", "of", "of_id", "price", "project", "projects",
        "reason", "role", "scope", "scopes", "state", "tenant", "tier", "usd", "valid_from", "window", "window_seconds",
        "cache_stale", "learning_collect", "learning_grants", "pool", "gates", "point", "verified", "rank", "domain",
        "decision", "queues", "labels", "force", "capabilities", "context_tokens", "fallbacks", "domains",
        "share", "winner", "rollout", "kind", "unit", "export", "into",
    }
)  # fmt: skip
_NESTED: Final = frozenset({"budget", "charge", "cost", "filter", "limits", "price", "verified"})
_MAX_ITEMS: Final = 20


class Act(NamedTuple):
    """An administrative act: its name (``keys.revoke``) and what it is about (empty where nothing is named)."""

    action: str
    object: str


class _Error(msgspec.Struct, frozen=True):
    code: str = ""


class Reply(msgspec.Struct, frozen=True):
    """What of an answer is looked at."""

    tenant: str = ""
    id: str = ""
    error: _Error = _Error()


_decode_reply = msgspec.json.Decoder(Reply).decode


def act_of(method: str, path: str) -> Act | None:
    """Names a request that changes something; none for any other.

    ``POST /v1/admin/keys/k1/revoke`` is ``keys.revoke`` of ``k1``, ``DELETE /v1/admin/budgets/b1`` is
    ``budgets.delete`` of ``b1``, ``POST /v1/admin/dead-letters/requeue`` is ``dead-letters.requeue``.
    """
    verb = _METHODS.get(method)
    if verb is None:
        return None
    if path in OTHERS:
        return Act(OTHERS[path], "")
    if not path.startswith(PREFIX):
        return None
    parts = [part for part in path[len(PREFIX) :].split("/") if part]
    match parts:
        case []:
            return Act(f"admin.{verb}", "")
        case [resource]:
            return Act(f"{resource}.{verb}", "")
        case ["models", *name] if method == "PATCH" or (method == "DELETE" and "prices" not in name[1:]):
            # A model's name may hold slashes.
            return Act(f"models.{verb}", "/".join(name))
        case [resource, last]:
            return Act(f"{resource}.{last}", "") if method == "POST" else Act(f"{resource}.{verb}", last)
        case _:
            return Act(f"{parts[0]}.{parts[-1]}", "/".join(parts[1:-1]))


def outcome_of(status: int) -> Outcome:
    """Returns how an act with this HTTP status ended."""
    if status < 400:
        return "done"
    return "refused" if status < 500 else "failed"


def told(body: bytes) -> dict[str, str]:
    """Returns what of a JSON body may be told; nothing of one that is no object."""
    try:
        fields: Any = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, RecursionError):
        return {"body": "not JSON"}
    if not isinstance(fields, dict):
        return {}
    found: dict[str, str] = {}
    for name, value in cast("dict[str, Any]", fields).items():
        if name not in _TOLD:
            continue
        if isinstance(value, Mapping):
            if name in _NESTED:
                inner = cast("Mapping[str, Any]", value)
                found.update({f"{name}.{key}": _text(one) for key, one in inner.items() if _is_plain(one)})
        elif (text := _text(value)) != "":
            found[name] = text
    return bounded_details(found)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _text(value: Any) -> str:
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return ",".join(_text(one) for one in items[:_MAX_ITEMS] if _is_plain(one))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if _is_plain(value) else ""


def reply_of(body: bytes) -> Reply:
    """Returns what of an answer is looked at; nothing of one that is no such object."""
    try:
        return _decode_reply(body)
    except (msgspec.DecodeError, RecursionError):
        return Reply()


def concerned(act: Act, reply: Reply) -> str:
    """Returns the tenant that an act was done to, empty where it cannot be told."""
    named = act.object.split("/")[0] or reply.id
    tenant = named if act.action.startswith("tenants.") else reply.tenant
    return tenant if TENANT_ID.match(tenant) else ""
