"""The verb ``context``: documents of fields that agents share by id, with their versions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from collegium_contracts.ids import CONVERSATION_ID
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError
from collegium_cli.learning.models import run_with
from collegium_cli.printing import print_json, print_table

PAGE = 200
_COLUMNS = ("version", "updated_at", "updated_by", "bytes")

Act = Callable[[Client, argparse.Namespace], int]


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if problem := _problem(options):
        print(f"collegium context {options.action}: {problem}", file=sys.stderr)
        return 2
    return run_with(settings, f"context {options.action}", lambda client: _ACTS[options.action](client, options))


def _problem(options: argparse.Namespace) -> str:
    """Says what is wrong with the command itself; empty where nothing is."""
    given: list[str] = options.what
    match options.action:
        case "ls":
            return "takes no id" if given else ""
        case "put":
            if len(given) != (1 if options.file else 2):
                return "give an id and the fields as a JSON object in quotes, or an id and --file"
            ids = given[:1]
        case "get":
            if len(given) != 1:
                return "give one id"
            ids = given
        case _:
            ids = given
    # An id becomes a part of paths.
    wrong = [one for one in ids if CONVERSATION_ID.match(one) is None]
    if wrong:
        return f"{wrong[0]!r} is no id (1 to 128 of letters, digits and . _ : -)"
    return "" if ids else "give ids"


def _ls(client: Client, options: argparse.Namespace) -> int:
    data = pages(client, "/v1/contexts", options)
    if options.json:
        return print_json(data)
    return print_table(("id", *_COLUMNS), [(one["id"], *_cells(one)) for one in data])


def _get(client: Client, options: argparse.Namespace) -> int:
    path = f"/v1/contexts/{options.what[0]}"
    if options.versions:
        data = client.call("GET", at(options, f"{path}/versions"))["data"]
        return print_json(data) if options.json else print_table(_COLUMNS, [_cells(one) for one in data])
    shown = client.call("GET", at(options, path, version=options.version))
    # The fields alone, so that they can be put again; with --json all that is known.
    return print_json(shown if options.json else shown["fields"])


def _put(client: Client, options: argparse.Namespace) -> int:
    name = options.what[0]
    fields = _fields(options)
    body: dict[str, Any] = {"fields": fields}
    if options.expect is not None:
        body["expected_version"] = options.expect
    if options.dry_run:
        told = {"id": name, **body, "merge": options.merge, "dry_run": True}
        return _print(told, options, f"{name} would be stored with {len(fields)} fields")
    done = client.call("PATCH" if options.merge else "PUT", at(options, f"/v1/contexts/{name}"), body)
    return _print(done, options, f"{name} version {done['version']}, {len(done['fields'])} fields")


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """Reads the fields; raises ClientError for what is no JSON object."""
    try:
        text = Path(options.file).read_bytes() if options.file else options.what[1].encode()
        return msgspec.json.decode(text, type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ClientError(f"the fields are a JSON object, as in '{{\"step\": 1}}': {error}") from None


def _rm(client: Client, options: argparse.Namespace) -> int:
    for name in options.what:
        path = f"/v1/contexts/{name}"
        if options.dry_run:
            told = {"id": name, "version": client.call("GET", at(options, path))["version"], "dry_run": True}
            _print(told, options, f"{name} version {told['version']} would be removed")
        else:
            done = client.call("DELETE", at(options, path, expected_version=options.expect))
            _print(done, options, f"{name} removed with all its versions")
    return 0


def at(options: argparse.Namespace, path: str, **query: Any) -> str:
    """Returns a path with what is given of a query, and with the project where one was named."""
    given = {name: value for name, value in {"project": options.project, **query}.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def pages(client: Client, path: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the first ``options.limit`` of a list that comes in pages."""
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < options.limit:
        limit = min(PAGE, options.limit - len(found))
        page = client.call("GET", at(options, path, limit=limit, cursor=cursor))
        found += page["data"]
        cursor = page.get("next_cursor")
        if not cursor:
            break
    return found


def _cells(shown: dict[str, Any]) -> tuple[str, ...]:
    return tuple("-" if shown.get(name) is None else str(shown[name]) for name in _COLUMNS)


def _print(body: Any, options: argparse.Namespace, plain: str) -> int:
    if options.json:
        return print_json(body)
    print(plain)
    return 0


_ACTS: dict[str, Act] = {"ls": _ls, "get": _get, "put": _put, "rm": _rm}
