"""The verb ``gate``: rules listed, tried on a text, given to a tenant, and what they did.

One rule: ``test`` ends with code 1 where the text is blocked, so that a script can ask.
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


def run(options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    try:
        client = connect(runtime_of(settings_of(options.config, options.data)))
        actions = {"ls": _list, "test": _test, "show": _show, "set": _set, "clear": _set, "report": _report}
        return actions[options.action](client, options)
    except (ClientError, OSError) as error:
        return failed("collegium gate", error)


def _print(value: Any) -> int:
    print(msgspec.json.encode(value).decode())
    return 0


def _list(client: Client, options: argparse.Namespace) -> int:
    rules = client.call("GET", "/v1/admin/gates")["data"]
    if options.json:
        return _print(rules)
    for rule in rules:
        who = "everyone" if rule["everyone"] else "named"
        needed = "required" if rule["required"] else "optional"
        on = ",".join(rule["on"])
        print(f"{rule['name']:<24} {rule['version']} {rule['kind']:<10} {rule['action']:<9} {needed:<9} {who:<9} {on}")
    return 0


def _test(client: Client, options: argparse.Namespace) -> int:
    if not options.what or not options.gate:
        raise ClientError("gate test takes a text and at least one --gate")
    verified = {} if options.age is None else {"age": options.age}
    text = sys.stdin.read() if options.what == ["-"] else " ".join(options.what)
    asked = {"text": text, "gates": options.gate, "point": options.on, "verified": verified}
    found = client.call("POST", "/v1/admin/gates/test", asked)
    if options.json:
        _print(found)
    else:
        print(found["result"] if found["text"] in (None, text) else f"changed: {found['text']}")
        for one in found["decisions"]:
            print(f"  {one['rule']}: {one['result']}: {one['reason']}")
    return 1 if found["result"] == "blocked" else 0


def _show(client: Client, options: argparse.Namespace) -> int:
    found = [client.call("GET", _path(tenant)) for tenant in options.what]
    if options.json:
        return _print(found)
    for one in found:
        vouched = f" (verified: {one['verified']})" if one["verified"] else ""
        print(f"{one['tenant']}: {', '.join(one['gates']) or 'none of its own'}{vouched}")
    return 0


def _set(client: Client, options: argparse.Namespace) -> int:
    if not options.what:
        raise ClientError(f"gate {options.action} takes a tenant")
    body = {"gates": options.gate, "verified": {} if options.age is None else {"age": options.age}}
    for tenant in options.what:
        if options.dry_run:
            print(f"would {options.action} the gates of {tenant}: {', '.join(options.gate) or 'none'}")
        elif options.action == "clear":
            _print(client.call("DELETE", _path(tenant)))
        else:
            _print(client.call("PUT", _path(tenant), body))
    return 0


def _report(client: Client, options: argparse.Namespace) -> int:
    wanted = {"tenant": options.tenant, "from": options.since, "to": options.until}
    wanted |= {"details": "1" if options.details else None, "format": "csv" if options.csv else None}
    path = f"/v1/admin/gates/report?{urlencode({name: value for name, value in wanted.items() if value})}"
    if options.csv:
        for line in client.lines("GET", path):
            sys.stdout.write(line)
        return 0
    found = client.call("GET", path)
    if options.json:
        return _print(found)
    for row in found["data"]:
        print(
            f"{row['tenant']:<16} {row['actor']:<16} {row['rule']:<24} {row['version']} {row['point']:<8}"
            f" {row['result']:<13} {row['count']:>6} {row['last_at']}"
        )
    if found["is_cut"]:
        print("there is more: ask for a shorter time", file=sys.stderr)
    return 0


def _path(tenant: str) -> str:
    return f"/v1/admin/tenants/{quote(tenant, safe='')}/gates"
