"""The verb ``memory``: what is remembered, recalled, corrected and forgotten, and who may read what."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from collegium_contracts.ids import GRANT_ID, MEMORY_ID
from collegium_settings import Settings

from collegium_cli.client import Client
from collegium_cli.learning.models import run_with
from collegium_cli.printing import print_json, print_table

_WITH_TEXT = {"add": 1, "recall": 1, "correct": 2}
_NOTHING = frozenset({"ls", "path", "paths", "grant", "grants"})
_FLAG = {"yes": True, "no": False, None: None}

Act = Callable[[Client, argparse.Namespace], int]


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if problem := _problem(options):
        print(f"collegium memory {options.action}: {problem}", file=sys.stderr)
        return 2
    return run_with(settings, f"memory {options.action}", lambda client: _ACTS[options.action](client, options))


def _problem(options: argparse.Namespace) -> str:
    """Says what is wrong with the command itself; empty where nothing is."""
    given: list[str] = options.what
    action: str = options.action
    if action in _WITH_TEXT:
        if len(given) != _WITH_TEXT[action]:
            return "give an id and the new text in quotes" if action == "correct" else "give one text in quotes"
        return _wrong(given[:1]) if action == "correct" else ""
    if action in _NOTHING:
        if given:
            return "takes no id"
        if action == "grant" and not (options.reader and options.source):
            return "say who may read what: --reader and --source"
        return "say where: --path" if action == "path" and not options.path else ""
    if action == "forget" and options.path:
        return "" if not given else "give ids, or --path"
    return _wrong(given) if given else "give the id of a memory" if action != "revoke" else "give the id of a grant"


def _wrong(ids: list[str]) -> str:
    # An id becomes a part of paths.
    wrong = [one for one in ids if MEMORY_ID.match(one) is None and GRANT_ID.match(one) is None]
    return f"{wrong[0]!r} is no id (mem_…, or grt_… of a grant)" if wrong else ""


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _add(client: Client, options: argparse.Namespace) -> int:
    body = {
        "text": options.what[0],
        **_present(path=options.path, kind=options.kind, valid_from=options.valid_from, valid_to=options.valid_to),
    }
    if options.dry_run:
        return _show_one({"path": "-", **body, "id": "-", "state": "would be added"}, options)
    return _show_one(client.call("POST", "/v1/memories", body), options)


def _recall(client: Client, options: argparse.Namespace) -> int:
    body = {
        "question": options.what[0],
        "limit": options.limit,
        **_present(path=options.path, as_of=options.as_of, known_at=options.known_at),
    }
    answer = client.call("POST", "/v1/memories/recall", body)
    if options.json:
        return print_json(answer)
    for why in answer["degraded"]:
        print(f"without meaning: {why}", file=sys.stderr)
    rows = [(one["id"], one["path"], f"{one['signals']['score']:.3f}", one["text"]) for one in answer["data"]]
    return print_table(("id", "path", "score", "text"), rows)


def _ls(client: Client, options: argparse.Namespace) -> int:
    query = {**_present(path=options.path), "limit": options.limit, **({"forgotten": "true"} if options.all else {})}
    data = client.call("GET", f"/v1/memories?{urlencode(query)}")["data"]
    if options.json:
        return print_json(data)
    rows = [(one["id"], one["path"], one["state"], one["valid_from"], one["text"] or "-") for one in data]
    return print_table(("id", "path", "state", "valid from", "text"), rows)


def _explain(client: Client, options: argparse.Namespace) -> int:
    query = urlencode(_present(question=options.question, path=options.path, task=options.task))
    for memory in options.what:
        path = f"/v1/memories/{quote(memory)}"
        shown = client.call("GET", f"{path}/explain?{query}" if query else path)
        if options.json:
            print_json(shown)
            continue
        _show_one(shown, options)
        for name in ("source", "recall", "task", "similar_to"):
            if shown.get(name):
                print(f"  {name}: {shown[name]}")
        rows = [
            (one["id"], one["cause"], one["state"], one["valid_from"], one["valid_to"] or "-", one["recorded_at"],
             one["text"] or "-")
            for one in shown["versions"]
        ]  # fmt: skip
        print_table(("version", "cause", "state", "valid from", "valid to", "recorded", "text"), rows)
    return 0


def _correct(client: Client, options: argparse.Namespace) -> int:
    memory, text = options.what
    body = {"text": text, **_present(valid_from=options.valid_from, valid_to=options.valid_to)}
    if options.dry_run:
        return _show_one({**client.call("GET", f"/v1/memories/{memory}"), "state": "would be corrected"}, options)
    return _show_one(client.call("POST", f"/v1/memories/{memory}/correct", body), options)


def _forget(client: Client, options: argparse.Namespace) -> int:
    if options.path:
        query = urlencode({"path": options.path})
        if options.dry_run:
            data = client.call("GET", f"/v1/memories?{query}&limit=200")["data"]
            told = {"path": options.path, "memories": len(data), "is_more": len(data) == 200, "dry_run": True}
            return _print(told, options, f"{len(data)}{'+' if len(data) == 200 else ''} at {options.path} would go")
        done = client.call("DELETE", f"/v1/memories?{query}")
        return _print(done, options, f"{done['versions']} versions at {done['path']} forgotten")
    for memory in options.what:
        if options.dry_run:
            _show_one({**client.call("GET", f"/v1/memories/{memory}"), "state": "would be forgotten"}, options)
        else:
            done = client.call("DELETE", f"/v1/memories/{memory}")
            _print(done, options, f"{memory} forgotten, {done['versions']} versions")
    return 0


def _path(client: Client, options: argparse.Namespace) -> int:
    body = {"path": options.path, **_present(off=_FLAG[options.off], inherits=_FLAG[options.inherits])}
    if options.dry_run:
        return _print({**body, "dry_run": True}, options, f"{options.path} would be set")
    done = client.call("PUT", "/v1/memories/paths", body)
    return _print(done, options, f"{done['path']} off: {done['off']}, inherits: {done['inherits']}")


def _paths(client: Client, options: argparse.Namespace) -> int:
    data = client.call("GET", "/v1/memories/paths")["data"]
    if options.json:
        return print_json(data)
    return print_table(
        ("path", "off", "inherits"), [(one["path"], str(one["off"]), str(one["inherits"])) for one in data]
    )


def _grant(client: Client, options: argparse.Namespace) -> int:
    body = {"reader": options.reader, "source": options.source}
    if options.dry_run:
        return _print({**body, "dry_run": True}, options, f"{options.reader} would read {options.source}")
    done = client.call("POST", "/v1/memories/grants", body)
    return _print(done, options, f"{done['id']} {done['reader']} reads {done['source']}")


def _grants(client: Client, options: argparse.Namespace) -> int:
    data = client.call("GET", "/v1/memories/grants")["data"]
    if options.json:
        return print_json(data)
    columns = ("id", "reader", "source", "created_at")
    return print_table(columns, [tuple(str(one[name]) for name in columns) for one in data])


def _revoke(client: Client, options: argparse.Namespace) -> int:
    for grant in options.what:
        if options.dry_run:
            _print({"id": grant, "dry_run": True}, options, f"{grant} would be revoked")
        else:
            done = client.call("DELETE", f"/v1/memories/grants/{grant}")
            _print(done, options, f"{done['reader']} reads {done['source']} no more")
    return 0


def _show_one(memory: dict[str, Any], options: argparse.Namespace) -> int:
    return _print(memory, options, f"{memory['id']} {memory['path']} {memory['state']}: {memory['text'] or '-'}")


def _print(body: Any, options: argparse.Namespace, plain: str) -> int:
    if options.json:
        return print_json(body)
    print(plain)
    return 0


_ACTS: dict[str, Act] = {
    "add": _add,
    "recall": _recall,
    "ls": _ls,
    "show": _explain,
    "explain": _explain,
    "correct": _correct,
    "forget": _forget,
    "path": _path,
    "paths": _paths,
    "grant": _grant,
    "grants": _grants,
    "revoke": _revoke,
}
