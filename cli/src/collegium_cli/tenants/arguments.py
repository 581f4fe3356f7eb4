"""Options of the verbs ``tenant``, ``project``, ``key``, ``limits`` and ``budget``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from collegium_cli.environment import settings_of

# Takes the verbs, a name, what it is about and what runs it; returns the verb's parser.
Add = Callable[..., argparse.ArgumentParser]
TENANT_VERBS = ("ls", "create", "show", "tier", "set", "suspend", "resume", "delete")
PRIVACY_VERBS = ("erase", "erasure", "data-keys", "rotate-data-key")
WINDOW = "a rolling window such as 30d or 5h, or calendar_day or calendar_month"


def add_identity(verbs: Any, add: Add) -> None:
    """Adds the verbs about who may do what."""
    tenant = add(verbs, "tenant", "Lists, creates, changes, deletes and erases tenants.", _run)
    tenant.add_argument("action", choices=[*TENANT_VERBS, *PRIVACY_VERBS])
    tenant.add_argument("--confirm", help="for erase: the tenant's id once more")
    tenant.add_argument("id", nargs="*", help="tenants' ids")
    tenant.add_argument("--tier", help="free, pro, enterprise, or one of the configuration")
    tenant.add_argument("--cache-stale", choices=["on", "off"], help="for set: old answers while no model can be asked")
    tenant.add_argument("--collect", choices=["on", "off"], help="for set: whether its work may be learned from")
    tenant.add_argument(
        "--grant", action="append", metavar="TENANT", help="for set: what was learned answers for it too; '' for nobody"
    )
    tenant.add_argument("--pool", help="for set: a dedicated worker pool; an empty name takes it away")
    project = add(verbs, "project", "Lists, creates, archives and restores projects.", _run)
    project.add_argument("action", choices=["ls", "create", "archive", "restore"])
    project.add_argument("id", nargs="*", help="projects' ids")
    project.add_argument("--tenant")
    project.add_argument("--name", default="")
    key = add(verbs, "key", "Lists, creates, shows, rotates and revokes keys.", _run)
    key.add_argument("action", choices=["ls", "create", "show", "rotate", "revoke"])
    key.add_argument("id", nargs="*", help="public ids, for show, rotate and revoke")
    key.add_argument("--tenant")
    key.add_argument("--project", default="default")
    key.add_argument("--name", default="")
    key.add_argument("--scopes", type=_names, default=("chat", "tasks", "usage"))
    key.add_argument("--role", default="", choices=["", "owner", "operator", "auditor", "member"])
    key.add_argument("--models", type=_names, default=(), help="the models that it may ask, by comma (default: all)")
    key.add_argument("--expires", help="when it ends, in RFC 3339")
    key.add_argument("--usd", help="a budget of its own")
    key.add_argument("--window", default="30d", help=f"of its budget: {WINDOW}")
    key.add_argument("--grace", default="1d", help="how long a rotated key still lets in")
    limits = add(verbs, "limits", "Shows, sets and removes rate limits of a tenant or key.", _run)
    limits.add_argument("action", choices=["show", "set", "rm"])
    of = limits.add_mutually_exclusive_group(required=True)
    of.add_argument("--tenant")
    of.add_argument("--key", help="a public id")
    for name in ("requests-per-minute", "tokens-per-minute", "requests-per-day", "tokens-per-window", "concurrency"):
        limits.add_argument(f"--{name}", type=int)
    limits.add_argument("--token-window", default="5h")
    budget = add(verbs, "budget", "Sets, shows, lists and removes budgets.", _run)
    budget.add_argument("action", choices=["set", "show", "ls", "rm"])
    budget.add_argument("id", nargs="*", help="budgets' ids; show: all of the tenant's without one")
    budget.add_argument("--tenant")
    budget.add_argument("--usd", help="what may be charged in a window, at most 12 decimals")
    budget.add_argument("--window", default="30d", help=WINDOW)
    budget.add_argument("--project", help="the project that it bounds")
    budget.add_argument("--key", help="the key that it bounds")
    budget.add_argument("--alerts", type=_percents, default=(), help="percents at which somebody is told, by comma")
    for verb in (tenant, project, key, limits, budget):
        verb.add_argument("--dry-run", action="store_true", help="show what would be asked, change nothing")
        verb.set_defaults(verb=verb.prog.rpartition(" ")[2])


def _run(options: argparse.Namespace) -> int:
    from collegium_cli.tenants.privacy import tenant
    from collegium_cli.tenants.verbs import run

    if options.verb == "tenant" and options.action in PRIVACY_VERBS:
        options.id = options.id[0] if len(options.id) == 1 else None
        return tenant(settings_of(options.config, options.data), options)

    return run(settings_of(options.config, options.data), options)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _percents(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _names(text))
