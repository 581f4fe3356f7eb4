"""The verb ``audit``: the audit trail listed, checked and exported, and an exported file checked by itself.

One rule: a check that finds anything wrong ends with code 1, and says where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import msgspec
from collegium_contracts.audit_export import MalformedExportError

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of, settings_of
from collegium_cli.printing import failed
from collegium_cli.tenants.audit_file import FileVerdict, verify_lines

_PAGE = 200


def run(options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    try:
        if options.file is not None:
            return _verify_file(options)
        client = connect(runtime_of(settings_of(options.config, options.data)))
        actions = {"ls": _list, "verify": _verify, "export": _export, "key": _key}
        return actions[options.action](client, options)
    except (ClientError, MalformedExportError, OSError, UnicodeDecodeError) as error:
        return failed("collegium audit", error)


def _query(options: argparse.Namespace, **more: Any) -> str:
    wanted = {"tenant": options.tenant, "from": options.since, "to": options.until, **more}
    return urlencode({name: value for name, value in wanted.items() if value not in (None, "")})


def _list(client: Client, options: argparse.Namespace) -> int:
    for record in _records(client, options):
        if options.json:
            print(msgspec.json.encode(record).decode())
            continue
        times = f" ×{record['count']}" if record["count"] > 1 else ""
        reason = f": {record['reason']}" if record["reason"] else ""
        about = f" {record['object']}" if record["object"] else ""
        print(
            f"{record['at']:<24} {record['tenant']:<16} {record['seq']:>6} {record['actor'] or '-':<16}"
            f" {record['action']}{about} {record['outcome']}{times}{reason}"
        )
    return 0


def _records(client: Client, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    left = options.limit
    while cursor is not None and left > 0:
        query = _query(
            options,
            action=options.kind,
            actor=options.actor,
            outcome=options.outcome,
            cursor=cursor,
            limit=min(left, _PAGE),
        )
        page = client.call("GET", f"/v1/admin/audit?{query}")
        yield from page["data"]
        left -= len(page["data"])
        cursor = page["next_cursor"]


def _verify(client: Client, options: argparse.Namespace) -> int:
    cursor: str | None = ""
    chains = broken = 0
    while cursor is not None:
        page = client.call("GET", f"/v1/admin/audit/verify?{_query(options, cursor=cursor)}")
        for chain in page["data"]:
            chains += 1
            broken += chain["problem"] is not None
            print(msgspec.json.encode(chain).decode() if options.json else line_of(chain))
        cursor = page["next_cursor"]
    if not options.json:
        print(f"{chains} chains, {broken} broken", file=sys.stderr)
    return 1 if broken else 0


def line_of(chain: dict[str, Any]) -> str:
    """Returns the line that tells what was found of one chain."""
    problem = chain["problem"]
    if problem is not None:
        return f"{chain['tenant']:<20} BROKEN at record {problem['seq']} ({problem['kind']}): {problem['detail']}"
    findings = chain["findings"]
    told = f"; {findings} records of faults, see `collegium audit ls --action audit`" if findings else ""
    return (
        f"{chain['tenant']:<20} holds: {chain['records']} records up to {chain['seq']}, {chain['anchors']} anchors,"
        f" {chain['hash'][:16]}{told}"
    )


def _export(client: Client, options: argparse.Namespace) -> int:
    lines = client.lines("GET", f"/v1/admin/audit/export?{_query(options, format=options.format)}")
    if options.out is None:
        for line in lines:
            sys.stdout.write(line)
        return 0
    with options.out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
    with options.out.open(encoding="utf-8", newline="") as file:
        return _tell(verify_lines(file, options.public_key), options)


def _key(client: Client, options: argparse.Namespace) -> int:
    page = client.call("GET", f"/v1/admin/audit/verify?{_query(options)}")
    if options.json:
        print(msgspec.json.encode(page["public_keys"]).decode())
        return 0
    for key_id, public_key in page["public_keys"].items():
        print(f"{key_id} {public_key}")
    return 0


def _verify_file(options: argparse.Namespace) -> int:
    if options.action != "verify":
        raise ClientError("--file goes with verify")
    try:
        keys = [bytes.fromhex(one).hex() for one in options.public_key]
    except ValueError:
        raise ClientError("--public-key is 64 hexadecimal digits, as `collegium audit key` shows them") from None
    with options.file.open(encoding="utf-8", newline="") as file:
        return _tell(verify_lines(file, keys), options)


def _tell(found: FileVerdict, options: argparse.Namespace) -> int:
    if options.json:
        print(msgspec.json.encode({**msgspec.to_builtins(found), "holds": found.holds}).decode())
        return 0 if found.holds else 1
    if found.problem is not None:
        problem = found.problem
        print(f"{found.tenant}: BROKEN at record {problem.seq} ({problem.kind}): {problem.detail}", file=sys.stderr)
        return 1
    keys = ", ".join(found.keys) or "none"
    print(
        f"{found.tenant}: {found.records} records hold, {found.first} to {found.last}, signed up to {found.covered} by"
        f" {keys}; begins at {found.begins}",
        file=sys.stderr,
    )
    if not found.trusted:
        print("the keys are the file's own: compare them with what `collegium audit key` shows", file=sys.stderr)
    return 0 if found.holds else 1
