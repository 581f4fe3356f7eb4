"""The verb ``schedule``: create, ls, show, pause, resume, rm."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec
from collegium_contracts.ids import SCHEDULE_ID
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    if problem := _problem(options):
        print(f"collegium schedule {options.action}: {problem}", file=sys.stderr)
        return 2
    actions = {"create": _create, "ls": _ls, "show": _show, "pause": _act, "resume": _act, "rm": _act}
    try:
        return actions[options.action](connect(runtime_of(settings)), options)
    except ClientError as error:
        return failed(f"collegium schedule {options.action}", error)


def _problem(options: argparse.Namespace) -> str:
    """Says what is wrong with the command itself; empty where nothing is."""
    given: list[str] = options.what
    if options.action == "create":
        if len(given) != 2:
            return "give a cron expression and a question, each in quotes"
        return ""
    if options.action == "ls":
        return "" if not given else "takes no id"
    if not given:
        return "give the id of a schedule"
    # An id becomes a part of paths.
    wrong = [one for one in given if SCHEDULE_ID.match(one) is None]
    return f"{wrong[0]!r} is no id of a schedule (sch_…)" if wrong else ""


def _create(client: Client, options: argparse.Namespace) -> int:
    cron, question = options.what
    task: dict[str, Any] = {"input": question, "model": options.model, "plan": options.plan}
    if options.deadline_seconds is not None:
        task["deadline_seconds"] = options.deadline_seconds
    if options.max_tokens is not None:
        task["max_tokens"] = options.max_tokens
    body = {
        "cron": cron,
        "timezone": options.timezone,
        "missed": options.missed,
        "name": options.name,
        "task": task,
    }
    if options.dry_run:
        return _print(body, options, f"{cron} ({options.timezone}) would be scheduled")
    made = client.call("POST", "/v1/schedules", body)
    return _print(made, options, f"{made['id']} next at {made['next_at']}")


def _ls(client: Client, options: argparse.Namespace) -> int:
    data = client.call("GET", "/v1/schedules")["data"]
    if options.json:
        return _print(data, options, "")
    print(f"{'id':<30} {'state':<7} {'cron':<20} {'timezone':<18} {'next':<24} {'fired':<6} name")
    for one in data:
        print(
            f"{one['id']:<30} {one['state']:<7} {one['cron']:<20} {one['timezone']:<18} {one['next_at'] or '-':<24}"
            f" {one['fired']:<6} {one['name']}"
        )
    return 0


def _show(client: Client, options: argparse.Namespace) -> int:
    for schedule_id in options.what:
        shown = client.call("GET", f"/v1/schedules/{schedule_id}")
        lines = [f"{name:<12} {_text(value)}" for name, value in shown.items() if name != "task"]
        lines += [f"task.{name:<16} {_text(value)}" for name, value in shown["task"].items()]
        _print(shown, options, "\n".join(lines))
    return 0


def _act(client: Client, options: argparse.Namespace) -> int:
    for schedule_id in options.what:
        path = f"/v1/schedules/{schedule_id}"
        if options.dry_run:
            shown = client.call("GET", path)
            would = {"id": schedule_id, "state": shown["state"], "dry_run": True}
            _print(would, options, f"{schedule_id} is {shown['state']}; {options.action} would change it")
        elif options.action == "rm":
            _print(client.call("DELETE", path), options, f"{schedule_id} deleted")
        else:
            changed = client.call("POST", f"{path}/{options.action}")
            _print(changed, options, f"{schedule_id} {changed['state']}, next at {changed['next_at'] or '-'}")
    return 0


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "-" if value is None else msgspec.json.encode(value).decode()


def _print(body: Any, options: argparse.Namespace, plain: str) -> int:
    print(msgspec.json.encode(body).decode() if options.json else plain)
    return 0
