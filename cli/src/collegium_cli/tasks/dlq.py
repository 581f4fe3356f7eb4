"""The verb ``dlq``: the dead letters listed, shown, requeued and discarded."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import msgspec
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed

_FILTERS = ("service", "tenant", "cause", "task", "since")
_PAGE = 200
_SHOWN_BYTES = 2_000


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code: 1 where a letter that was named could not be requeued."""
    if problem := _problem(options):
        print(f"collegium dlq {options.action}: {problem}", file=sys.stderr)
        return 2
    try:
        client = connect(runtime_of(settings))
        if options.action == "ls":
            return _ls(client, options)
        if options.action == "show":
            return _show(client, options)
        return _act(client, options)
    except ClientError as error:
        return failed(f"collegium dlq {options.action}", error)


def _problem(options: argparse.Namespace) -> str:
    filtered = [name for name in _FILTERS if getattr(options, name) is not None]
    if options.action == "ls":
        return "ids are for show, requeue and discard" if options.id else ""
    if options.action == "show":
        return "" if options.id and not filtered else "give the ids of letters (`collegium dlq ls` shows them)"
    if options.id and (options.all or filtered):
        return "give either ids or --all with a filter"
    if not options.id and not options.all:
        return "give ids, or --all (with --service, --tenant, --cause, --task, --since to mean fewer)"
    return ""


def filter_of(options: argparse.Namespace) -> dict[str, str]:
    """Returns the filter that the options name, as the admin API takes it."""
    return {name: getattr(options, name) for name in _FILTERS if getattr(options, name) is not None}


def _ls(client: Client, options: argparse.Namespace) -> int:
    letters = list(_listed(client, filter_of(options), options.limit))
    if options.json:
        print(msgspec.json.encode(letters).decode())
        return 0
    print(f"{'id':<8} {'at':<24} {'service':<12} {'tenant':<12} {'cause':<20} {'task':<30} {'try':<4} detail")
    for letter in letters:
        cause = letter["cause"] + (f" ({letter['code']})" if letter.get("code") else "")
        print(
            f"{letter['id']:<8} {letter.get('at', ''):<24} {letter['service']:<12} {letter['tenant'] or '-':<12}"
            f" {cause:<20} {letter.get('task') or '-':<30} {letter.get('delivery') or '-':<4} {letter['detail']}"
        )
    return 0


def _listed(client: Client, wanted: dict[str, str], limit: int) -> Iterator[dict[str, Any]]:
    cursor: str | None = "0"
    while cursor is not None and limit > 0:
        query = urlencode({**wanted, "cursor": cursor, "limit": min(limit, _PAGE)})
        page = client.call("GET", f"/v1/admin/dead-letters?{query}")
        yield from page["data"]
        limit -= len(page["data"])
        cursor = page["next_cursor"]


def _show(client: Client, options: argparse.Namespace) -> int:
    for number in options.id:
        letter = client.call("GET", f"/v1/admin/dead-letters/{number}")
        if options.json:
            print(msgspec.json.encode(letter).decode())
            continue
        original = base64.b64decode(letter.pop("payload_base64", ""))
        for name, value in letter.items():
            if value is not None:
                print(f"{name:<10} {value if isinstance(value, str | int) else msgspec.json.encode(value).decode()}")
        # The bytes themselves may hold what a person wrote; --json has them.
        if letter.get("message") is None and original:
            print(f"{'original':<10} {original[:_SHOWN_BYTES]!r}")
    return 0


def _act(client: Client, options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"dry_run": options.dry_run}
    if options.id:
        body["ids"] = options.id
    else:
        body |= {"filter": filter_of(options), "limit": options.limit}
    answer = client.call("POST", f"/v1/admin/dead-letters/{options.action}", body)
    outcomes: list[dict[str, Any]] = answer["data"]
    if options.json:
        print(msgspec.json.encode(answer).decode())
    else:
        for outcome in outcomes:
            print(line_of(outcome))
        print(f"{len(outcomes)} letters{', nothing was changed' if options.dry_run else ''}", file=sys.stderr)
    if answer["more"]:
        print("there are more letters; run it again, or raise --limit", file=sys.stderr)
    return 1 if any(outcome["state"] in ("impossible", "not_found") for outcome in outcomes) else 0


def line_of(outcome: dict[str, Any]) -> str:
    """Returns the line that tells what became of one letter."""
    state = f"would be {outcome['state']}" if outcome.get("dry_run") else outcome["state"]
    went = ""
    if outcome.get("task"):
        went = f" as task {outcome['task']} (again {outcome['retry_of']})"
    elif outcome.get("to"):
        went = f" to {outcome['to']}"
    reason = f": {outcome['reason']}" if outcome.get("reason") else ""
    return f"{outcome['id']} {state}{went}{reason}"
