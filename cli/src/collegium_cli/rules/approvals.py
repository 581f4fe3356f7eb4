"""The verb ``approval``: questions to people listed, shown, taken, given back, moved and answered.

One rule: only ``show`` prints content, and that it was shown is in the audit trail.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of, settings_of
from collegium_cli.printing import failed

PATH = "/v1/admin/approvals"


def run(options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if options.action in ("show", "return", "move", "answer") and not options.id:
        print(f"collegium approval {options.action}: give the id of a question", file=sys.stderr)
        return 2
    if options.action == "answer" and options.decision is None and options.text is None:
        print("collegium approval answer: give --approve, --deny or --text", file=sys.stderr)
        return 2
    if options.action == "move" and len(options.queue) != 1:
        print("collegium approval move: give one --queue", file=sys.stderr)
        return 2
    actions = {"ls": _list, "show": _show, "claim": _claim, "return": _act, "move": _act, "answer": _act}
    try:
        return actions[options.action](connect(runtime_of(settings_of(options.config, options.data))), options)
    except (ClientError, OSError) as error:
        return failed("collegium approval", error)


def _list(client: Client, options: argparse.Namespace) -> int:
    wanted = {"state": options.state or "open", "tenant": options.tenant, "limit": str(options.limit)}
    wanted |= {"queue": ",".join(options.queue), "label": ",".join(options.label)}
    page = client.call("GET", f"{PATH}?{urlencode({name: value for name, value in wanted.items() if value})}")
    if options.json:
        print(msgspec.json.encode(page).decode())
        return 0
    for row in page["data"]:
        labels, hand = ",".join(row["labels"]), row["claimed_by"] or "-"
        print(
            f"{row['id']:<41} {row['tenant']:<16} {row['queue'] or row['of']:<16} {row['kind']:<9} {row['reason']:<10}"
            f" {row['state']:<9} {row['expires_at']} {hand:<13} {labels}"
        )
    return 0


def _show(client: Client, options: argparse.Namespace) -> int:
    for name in options.id:
        found = client.call("GET", _path(name))
        if options.json:
            print(msgspec.json.encode(found).decode())
            continue
        print(
            f"{found['id']} {found['state']}, {found['kind']} because {found['reason']} {found['rule'] or ''}".rstrip()
        )
        for message in found.get("messages") or ():
            print(f"  {message['role']}: {message['content']}")
        for choice in found.get("candidate") or ():
            print(f"  {found['model']} ({found['confidence']}): {choice.get('text')}")
    return 0


def _claim(client: Client, options: argparse.Namespace) -> int:
    if options.id:
        return _act(client, options)
    if options.dry_run:
        print("would take the oldest question that nobody works on")
        return 0
    wanted = {"queues": options.queue or None, "labels": options.label or None}
    return _print(client.call("POST", f"{PATH}/claim", wanted), options)


def _act(client: Client, options: argparse.Namespace) -> int:
    for name in options.id:
        if options.dry_run:
            print(f"would {options.action} {name}")
            continue
        body: dict[str, Any] = {}
        if options.action == "answer":
            body = {"decision": options.decision, "text": options.text, "comment": options.comment}
        if options.action == "move":
            body = {"queue": options.queue[0], "comment": options.comment}
        _print(client.call("POST", f"{_path(name)}/{options.action}", body), options)
    return 0


def _print(row: dict[str, Any], options: argparse.Namespace) -> int:
    plain = f"{row['id']} {row['state']} {row['decision'] or ''} {row['claimed_by'] or ''}".rstrip()
    print(msgspec.json.encode(row).decode() if options.json else plain)
    return 0


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='')}"
