"""The verb ``conversation``: which there are, what was said in one, and forgetting one or a turn of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from collegium_contracts.ids import CONVERSATION_ID, TASK_ID
from collegium_settings import Settings

from collegium_cli.client import Client
from collegium_cli.knowledge.contexts import at, pages
from collegium_cli.learning.models import run_with
from collegium_cli.printing import print_json, print_table

TURNS_PAGE = 100

Act = Callable[[Client, argparse.Namespace], int]


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if problem := _problem(options):
        print(f"collegium conversation {options.action}: {problem}", file=sys.stderr)
        return 2
    return run_with(settings, f"conversation {options.action}", lambda client: _ACTS[options.action](client, options))


def _problem(options: argparse.Namespace) -> str:
    """Says what is wrong with the command itself; empty where nothing is."""
    given: list[str] = options.id
    if options.action == "ls":
        return "takes no id" if given else ""
    # An id becomes a part of paths.
    wrong = [one for one in given if CONVERSATION_ID.match(one) is None]
    if wrong:
        return f"{wrong[0]!r} is no id (1 to 128 of letters, digits and . _ : -)"
    if options.action == "show" or options.turn:
        if len(given) != 1:
            return "give one id"
        if options.turn and TASK_ID.match(options.turn) is None:
            return f"{options.turn!r} is no id of a task (tsk_…)"
    return "" if given else "give ids"


def _ls(client: Client, options: argparse.Namespace) -> int:
    data = pages(client, "/v1/conversations", options)
    if options.json:
        return print_json(data)
    columns = ("id", "turns", "messages", "bytes", "updated_at")
    return print_table(columns, [tuple(str(one[name]) for name in columns) for one in data])


def _show(client: Client, options: argparse.Namespace) -> int:
    turns: list[Any] = []
    cursor = None
    while len(turns) < options.limit:
        limit = min(TURNS_PAGE, options.limit - len(turns))
        page = client.call("GET", at(options, f"/v1/conversations/{options.id[0]}", limit=limit, cursor=cursor))
        turns += page["data"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    turns.reverse()
    if options.json:
        return print_json(turns)
    for turn in turns:
        print(f"{turn['created_at']} {turn['task_id']}")
        for message in turn["messages"] or [{"role": "-", "content": "too long to be shown"}]:
            print(f"  {message['role']}: {_text(message)}")
    return 0


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts: list[Any] = content if isinstance(content, list) else []
    return " ".join(part.get("text") or f"[{part.get('type')}]" for part in parts) or "-"


def _rm(client: Client, options: argparse.Namespace) -> int:
    for name in options.id:
        path = f"/v1/conversations/{name}" + (f"/turns/{options.turn}" if options.turn else "")
        if options.dry_run:
            client.call("GET", at(options, f"/v1/conversations/{name}", limit=1))
            _print({"id": name, "dry_run": True}, options, f"{options.turn or name} would be removed")
        else:
            done = client.call("DELETE", at(options, path))
            _print(done, options, f"{options.turn or name} removed, {done['turns']} turns")
    return 0


def _print(body: Any, options: argparse.Namespace, plain: str) -> int:
    if options.json:
        return print_json(body)
    print(plain)
    return 0


_ACTS: dict[str, Act] = {"ls": _ls, "show": _show, "rm": _rm}
