"""The verb ``doc``: add, ls, rm, search. One rule: a file that is refused does not keep the others from being added."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from collegium_contracts.ids import DOCUMENT_ID
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.knowledge.forms import Form
from collegium_cli.printing import failed

KINDS = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".pdf": "pdf"}
_SHOWN_CHARS = 200


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if problem := _problem(options):
        print(f"collegium doc {options.action}: {problem}", file=sys.stderr)
        return 2
    actions = {"add": _add, "ls": _ls, "rm": _rm, "search": _search}
    try:
        return actions[options.action](connect(runtime_of(settings)), options)
    except ClientError as error:
        return failed(f"collegium doc {options.action}", error)


def _problem(options: argparse.Namespace) -> str:
    """Says what is wrong with the command itself; empty where nothing is."""
    given: list[str] = options.what
    if options.action == "ls":
        return "" if not given else "takes no name"
    if not given:
        return {"add": "give files", "rm": "give ids of documents", "search": "give a question"}[options.action]
    if options.action == "add":
        if options.id and len(given) > 1:
            return "--id names one file"
        if options.replace and not options.id:
            return "--replace needs --id"
        if options.id and DOCUMENT_ID.match(options.id) is None:
            return f"{options.id!r} is no id of a document"
        if options.fields and not _is_object(options.fields):
            return "--fields is a JSON object"
        missing = [one for one in given if not Path(one).is_file()]
        return f"{missing[0]} is no file" if missing else ""
    if options.action == "rm":
        wrong = [one for one in given if DOCUMENT_ID.match(one) is None]
        return f"{wrong[0]!r} is no id of a document" if wrong else ""
    if len(given) != 1:
        return "give one question, in quotes"
    return "" if not options.filter or _is_object(options.filter) else "--filter is a JSON object"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


def _add(client: Client, options: argparse.Namespace) -> int:
    code = 0
    for name in options.what:
        path = Path(name)
        kind = options.type or KINDS.get(path.suffix.lower(), "text")
        if options.dry_run:
            size = path.stat().st_size
            _print({"file": name, "type": kind, "bytes": size}, options, f"{name} would be added as {kind}")
            continue
        try:
            made = _send(client, options, path, kind)
        except (ClientError, OSError) as error:
            code = failed(f"collegium doc add: {name}", error)
            continue
        why = f" ({made['error']['message']})" if made["error"] else ""
        _print(made, options, f"{made['id']} {made['state']}, {made['chunks']} chunks: {name}{why}")
        code = 1 if made["state"] == "failed" else code
    return code


def _send(client: Client, options: argparse.Namespace, path: Path, kind: str) -> Any:
    fields = [("type", kind), ("title", options.title), *(("tags", tag) for tag in options.tag)]
    if options.fields:
        fields.append(("fields", options.fields))
    headers = {"Prefer": f"wait={options.wait}"} if options.wait else None
    if options.replace:
        return client.upload("PUT", f"/v1/documents/{options.id}", Form(path, fields), headers)
    return client.upload("POST", "/v1/documents", Form(path, [*fields, ("id", options.id)]), headers)


def _ls(client: Client, options: argparse.Namespace) -> int:
    state = f"&state={options.state}" if options.state else ""
    shown: list[Any] = []
    cursor = ""
    while len(shown) < options.limit:
        size = min(200, options.limit - len(shown))
        page = client.call("GET", f"/v1/documents?limit={size}{state}{cursor}")
        shown += page["data"]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={quote(page['next_cursor'])}"
    if options.json:
        return _print(shown, options, "")
    print(f"{'id':<32} {'state':<9} {'type':<9} {'chunks':>6} {'stored':>10} title")
    for one in shown:
        print(
            f"{one['id']:<32} {one['state']:<9} {one['type']:<9} {one['chunks']:>6} {one['stored_bytes']:>10}"
            f" {one['title']}"
        )
    return 0


def _rm(client: Client, options: argparse.Namespace) -> int:
    for document in options.what:
        if options.dry_run:
            shown = client.call("GET", f"/v1/documents/{document}")
            would = {"id": document, "state": shown["state"], "dry_run": True}
            _print(would, options, f"{document} would be removed")
        else:
            _print(client.call("DELETE", f"/v1/documents/{document}"), options, f"{document} removed")
    return 0


def _search(client: Client, options: argparse.Namespace) -> int:
    body = {
        "query": options.what[0],
        "limit": options.limit,
        "mode": options.mode,
        "explain": options.explain,
        "filters": {"tags": options.tag, **(msgspec.json.decode(options.filter) if options.filter else {})},
        "rewrite": options.rewrite,
        "expand": options.expand,
        "model": options.model,
        "rerank": options.rerank,
    }
    found = client.call("POST", "/v1/search", body)
    if options.json:
        return _print(found, options, "")
    if found["degraded"]:
        print(f"degraded: {found['degraded']}", file=sys.stderr)
    _tell_of_steps(found)
    for one in found["data"]:
        text = " ".join(one["text"].split())[:_SHOWN_CHARS]
        print(f"{one['score']:.3f} {one['document']}#{one['chunk']} {one.get('title', '')}\n      {text}")
        if options.explain:
            print(f"      {msgspec.json.encode(one['explain']).decode()}")
    return 0


def _tell_of_steps(found: Any) -> None:
    if (rewriting := found.get("rewriting")) is not None:
        for wording in rewriting.get("queries", []):
            print(f"also asked: {wording}", file=sys.stderr)
        if rewriting["state"] == "plain":
            print(f"asked as it is: {rewriting['reason']}", file=sys.stderr)
    if found.get("reranked", "done") != "done":
        print(f"not ranked again: {found['reranked']}", file=sys.stderr)


def _print(body: Any, options: argparse.Namespace, plain: str) -> int:
    print(msgspec.json.encode(body).decode() if options.json else plain)
    return 0
