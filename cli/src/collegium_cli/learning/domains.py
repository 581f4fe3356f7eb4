"""The verb ``domain``: domains that were discovered, as a table or JSON; naming and merging them."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of, settings_of
from collegium_cli.printing import failed, print_json, print_table

COLUMNS = ("id", "tenant", "name", "state", "questions", "share", "first", "into")
_DOMAINS = "/v1/admin/domains"


def run(options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    try:
        return _act(connect(runtime_of(settings_of(options.config, options.data))), options)
    except ClientError as error:
        return failed("collegium domain", error)


def _act(client: Client, options: argparse.Namespace) -> int:
    if options.action == "ls":
        query = f"?tenant={quote(options.tenant, safe='')}" if options.tenant else ""
        rows = client.call("GET", _DOMAINS + query)["data"]
        return _show([row for row in rows if options.all or row["state"] != "retired"], options)
    if not options.id:
        raise ClientError("give the id of a domain; see collegium domain ls")
    path = f"{_DOMAINS}/{quote(options.id, safe='')}"
    if options.action == "show":
        return _show([client.call("GET", path)], options)
    if options.dry_run:
        print(f"would {options.action} {options.id}: {options.to or '(none)'}")
        return 0
    if options.action == "rename":
        return _show([client.call("PATCH", path, {"name": options.to})], options)
    return _show([client.call("POST", f"{path}/merge", {"into": options.to})], options)


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> int:
    return print_json(rows) if options.json else print_table(COLUMNS, [_row(one) for one in rows])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["id"], one["tenant"], one["name"], one["state"], str(one["questions"]), f"{one['share']:.1%}",
        one["first_at"], one["into"] or "-",
    )  # fmt: skip
