"""The verbs ``tenant``, ``project``, ``key``, ``limits`` and ``budget``: the admin API as tables or JSON.

Every action is a list of requests, made from the options alone, so that a dry run shows exactly what would be asked.
One rule: a key in the open is printed once, on standard output, and by nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from collegium_settings import Settings

from collegium_cli.client import ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed

COLUMNS = {
    "tenant": ("id", "tier", "state", "keys", "projects", "created_at"),
    "project": ("id", "tenant", "name", "keys", "created_at", "archived_at"),
    "key": ("id", "tenant", "project", "name", "role", "created_at", "expires_at", "last_used_at", "revoked_at"),
    "limits": ("tenant", "key", "limits"),
    "budget": (
        "id", "tenant", "scope", "of", "usd", "captured_usd", "held_usd", "remaining_usd", "renews_at",
        "window", "window_seconds", "alert_percents",
    ),
}  # fmt: skip
# Actions on one thing print one object; those that take several ids, or list, print a list, however many there are.
_OF_ONE = {("budget", "set"), ("limits", "show"), ("limits", "set"), ("limits", "rm")}
_LIMITS = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_window", "concurrency")


class Request(NamedTuple):
    """One request of the admin API."""

    method: str
    path: str
    body: dict[str, Any] | None = None


class UsageError(Exception):
    """Options that do not say enough, or too much."""


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    said = f"collegium {options.verb} {options.action}"
    try:
        requests = _REQUESTS[options.verb](options)
    except UsageError as error:
        print(f"{said}: {error}", file=sys.stderr)
        return 2
    if options.dry_run and requests[0].method != "GET":
        return _dry(requests, options)
    try:
        client = connect(runtime_of(settings))
        answers = [client.call(*request) for request in requests]
    except ClientError as error:
        return failed(said, error)
    rows = answers[0].get("data", answers)
    made = [row["key"] for row in rows if "scopes" in row and "key" in row]
    if options.json:
        is_one = (options.verb, options.action) in _OF_ONE or (made and len(rows) == 1)
        print(msgspec.json.encode(rows[0] if is_one else rows).decode())
    elif made:
        print("\n".join(made))
        print("shown once; stored as a hash", file=sys.stderr)
    else:
        _table(COLUMNS[options.verb], rows)
    return 0


def _tenant(options: argparse.Namespace) -> list[Request]:
    base = "/v1/admin/tenants"
    match options.action:
        case "ls":
            return [Request("GET", base)]
        case "create":
            tier = options.tier or "free"
            return [Request("POST", base, {"id": one, "tier": tier}) for one in _ids(options, "the new tenant's id")]
        case "show":
            return [Request("GET", f"{base}/{one}") for one in _paths(options)]
        case "tier":
            if not options.tier:
                raise UsageError("give --tier")
            return [Request("PATCH", f"{base}/{one}", {"tier": options.tier}) for one in _paths(options)]
        case "set":
            return [Request("PATCH", f"{base}/{one}", _tenant_settings(options)) for one in _paths(options)]
        case "delete":
            return [Request("DELETE", f"{base}/{one}") for one in _paths(options)]
        case action:
            return [Request("POST", f"{base}/{one}/{action}") for one in _paths(options)]


def _tenant_settings(options: argparse.Namespace) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if options.tier:
        body["tier"] = options.tier
    if options.cache_stale is not None:
        body["cache_stale"] = options.cache_stale == "on"
    if options.pool is not None:
        body["pool"] = options.pool
    if options.collect is not None:
        body["learning_collect"] = options.collect == "on"
    if options.grant is not None:
        body["learning_grants"] = [tenant for tenant in options.grant if tenant]
    if not body:
        raise UsageError("give --cache-stale, --collect, --grant, --pool or --tier")
    return body


def _project(options: argparse.Namespace) -> list[Request]:
    base = "/v1/admin/projects"
    if options.action == "ls":
        return [Request("GET", base + _query(tenant=options.tenant))]
    tenant = _named(options.tenant, "--tenant")
    if options.action == "create":
        made = [{"tenant": tenant, "id": one, "name": options.name} for one in _ids(options, "the new project's id")]
        return [Request("POST", base, body) for body in made]
    return [Request("POST", f"{base}/{quote(tenant, safe='')}/{one}/{options.action}") for one in _paths(options)]


def _key(options: argparse.Namespace) -> list[Request]:
    base = "/v1/admin/keys"
    match options.action:
        case "ls":
            return [Request("GET", base + _query(tenant=options.tenant))]
        case "show":
            return [Request("GET", f"{base}/{one}") for one in _paths(options)]
        case "revoke":
            return [Request("POST", f"{base}/{one}/revoke") for one in _paths(options)]
        case "rotate":
            return [Request("POST", f"{base}/{one}/rotate", {"grace": options.grace}) for one in _paths(options)]
        case _:
            return [Request("POST", base, _new_key(options))]


def _new_key(options: argparse.Namespace) -> dict[str, Any]:
    body = {
        "tenant": _named(options.tenant, "--tenant"),
        "project": options.project,
        "name": options.name,
        "scopes": list(options.scopes),
        "role": options.role,
        "models": list(options.models),
        "expires_at": options.expires,
    }
    if options.usd:
        body["budget"] = {"usd": options.usd, "window": options.window}
    return body


def _limits(options: argparse.Namespace) -> list[Request]:
    of = f"tenants/{quote(options.tenant, safe='')}" if options.tenant else f"keys/{quote(options.key, safe='')}"
    path = f"/v1/admin/{of}/limits"
    if options.action == "show":
        return [Request("GET", path)]
    if options.action == "rm":
        return [Request("DELETE", path)]
    given = {name: getattr(options, name) for name in _LIMITS if getattr(options, name) is not None}
    if not given:
        raise UsageError("give at least one limit, such as --requests-per-minute 60")
    return [Request("PUT", path, {**given, "token_window": options.token_window})]


def _budget(options: argparse.Namespace) -> list[Request]:
    base = "/v1/admin/budgets"
    if options.action == "ls":
        return [Request("GET", base + _query(tenant=options.tenant))]
    path = f"{base}/{quote(_named(options.tenant, '--tenant'), safe='')}"
    if options.action == "show" and not options.id:
        return [Request("GET", base + _query(tenant=options.tenant))]
    if options.action == "show":
        return [Request("GET", f"{path}/{one}") for one in _paths(options)]
    if options.action == "rm":
        return [Request("DELETE", f"{path}/{one}") for one in _paths(options)]
    if options.project and options.key:
        raise UsageError("give either --project or --key, or neither")
    scope, of = ("project", options.project) if options.project else ("key", options.key)
    if not of:
        scope, of = "tenant", ""
    body = {
        "usd": _named(options.usd, "--usd"),
        "scope": scope,
        "of": of,
        "window": options.window,
        "alert_percents": list(options.alerts),
    }
    if len(options.id) > 1:
        raise UsageError("one budget is set at a time")
    name = options.id[0] if options.id else f"{scope}-{of}" if of else scope
    return [Request("PUT", f"{path}/{quote(name, safe='')}", body)]


_REQUESTS = {"tenant": _tenant, "project": _project, "key": _key, "limits": _limits, "budget": _budget}


def _ids(options: argparse.Namespace, what: str = "ids") -> list[str]:
    if not options.id:
        raise UsageError(f"give {what} (`collegium {options.verb} ls` shows those that stand)")
    return list(options.id)


def _paths(options: argparse.Namespace) -> list[str]:
    return [quote(one, safe="") for one in _ids(options)]


def _named(value: str | None, option: str) -> str:
    if not value:
        raise UsageError(f"give {option}")
    return value


def _query(**values: str | None) -> str:
    given = {name: value for name, value in values.items() if value}
    return f"?{urlencode(given)}" if given else ""


def _dry(requests: Sequence[Request], options: argparse.Namespace) -> int:
    if options.json:
        print(msgspec.json.encode([request._asdict() for request in requests]).decode())
    else:
        for method, path, body in requests:
            print(f"{method} {path} {msgspec.json.encode(body).decode() if body else ''}".rstrip())
    print(f"{len(requests)} would be asked, nothing was changed", file=sys.stderr)
    return 0


def _table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    cells = [tuple(_cell(row.get(column)) for column in columns) for row in rows]
    widths = [max([len(column), *(len(row[index]) for row in cells)]) for index, column in enumerate(columns)]
    for line in (columns, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items() if one is not None)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return ",".join(str(one) for one in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return "" if value is None else str(value)
