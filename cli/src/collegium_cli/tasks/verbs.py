"""The verb ``task``: ls, show, tail, cancel, retry, feedback, input."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any
from urllib.parse import urlencode

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts.ids import TASK_ID, TENANT_ID
from collegium_contracts.ladder import Rung, ladder
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import quiet_libraries, runtime_of
from collegium_cli.printing import failed
from collegium_cli.tasks.ladder import of_task, table

# How a key without operators' rights is refused.
_NO_OPERATOR = ("insufficient_scope", "insufficient_role")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    actions = {"ls": _ls, "tail": _tail, "cancel": _cancel, "retry": _retry, "feedback": _feedback, "input": _input}
    if options.action != "ls" and not options.id:
        print(f"collegium task {options.action}: give the id of a task", file=sys.stderr)
        return 2
    # An id becomes a part of subjects and paths.
    if wrong := [task_id for task_id in options.id if TASK_ID.match(task_id) is None]:
        print(f"collegium task {options.action}: {wrong[0]!r} is no id of a task (tsk_…)", file=sys.stderr)
        return 2
    if options.tenant is not None and TENANT_ID.match(options.tenant) is None:
        print(f"collegium task {options.action}: {options.tenant!r} is no id of a tenant", file=sys.stderr)
        return 2
    try:
        if options.action == "show":
            return _show(settings, options)
        return actions[options.action](connect(runtime_of(settings)), options)
    except (ClientError, BusError) as error:
        return failed(f"collegium task {options.action}", error)


def _ls(client: Client, options: argparse.Namespace) -> int:
    query = {"limit": str(options.limit), **({"state": options.state} if options.state else {})}
    page = client.call("GET", f"/v1/tasks?{urlencode(query)}")
    if options.json:
        print(msgspec.json.encode(page).decode())
        return 0
    print(f"{'id':<30} {'state':<10} {'created':<24} {'model':<20} {'cost USD':<14} stop reason")
    for task in page["data"]:
        about: dict[str, Any] = task["collegium"] or {}
        print(
            f"{task['id']:<30} {task['state']:<10} {task['created_at']:<24} {about.get('model') or task['model']:<20}"
            f" {about.get('cost_usd', ''):<14} {task['stop_reason'] or ''}"
        )
    return 0


def _show(settings: Settings, options: argparse.Namespace) -> int:
    quiet_libraries()
    runtime = runtime_of(settings)
    # A gateway that was named is asked itself, unless it is the data folder's: that one's broker is at hand.
    named = os.environ.get("COLLEGIUM_URL", "").rstrip("/")
    by_broker = settings.nats.url or named in ("", runtime.http)
    for task_id in options.id:
        if by_broker:
            rungs = asyncio.run(_read(settings, runtime, options.tenant or "", task_id))
            note = ""
        else:
            rungs, note = _asked(connect(runtime), task_id)
        if not rungs:
            raise ClientError(f"EVENTS holds nothing of {task_id}", "not_found")
        if options.json:
            print(msgspec.json.encode({"id": task_id, "ladder": rungs}).decode())
        else:
            print(f"{task_id}\n{table(rungs)}")
        if note:
            print(f"collegium task show: {note}", file=sys.stderr)
    return 0


async def _read(settings: Settings, runtime: Runtime, tenant: str, task_id: str) -> list[Rung]:
    from collegium_bus.reading import task_events

    from collegium_cli.tasks.operator import operator

    async with operator(settings, runtime) as connection:
        return ladder(await task_events(connection, task_id, tenant))


def _asked(client: Client, task_id: str) -> tuple[list[Rung], str]:
    """The ladder as the gateway tells it; a key that may not see it sees what its own task shows, which is said."""
    try:
        told = client.call("GET", f"/v1/admin/tasks/{task_id}/ladder")
    except ClientError as error:
        if error.code not in _NO_OPERATOR:
            raise
        return of_task(client.call("GET", f"/v1/tasks/{task_id}")), "the whole ladder takes an operator's key"
    return msgspec.convert(told["ladder"], list[Rung]), ""


def _tail(client: Client, options: argparse.Namespace) -> int:
    for event in client.events("GET", f"/v1/tasks/{options.id[0]}/events"):
        if options.json:
            line = {"event": event.name, "id": event.event_id, "data": msgspec.Raw(event.data.encode())}
            print(msgspec.json.encode(line).decode(), flush=True)
        elif event.name == "token":
            print(msgspec.json.decode(event.data)["text"], end="", flush=True)
        elif event.name == "done":
            task = msgspec.json.decode(event.data)
            print(f"\n[{task['state']}, {task['stop_reason']}]")
        else:
            print(f"[{event.name} {event.data}]", flush=True)
    return 0


def _cancel(client: Client, options: argparse.Namespace) -> int:
    for task_id in options.id:
        if options.dry_run:
            task = client.call("GET", f"/v1/tasks/{task_id}")
            plain = f"{task_id} is {task['state']} and would be canceled"
            would = {"id": task_id, "state": task["state"], "dry_run": True}
            print(msgspec.json.encode(would).decode() if options.json else plain)
            continue
        task = client.call("POST", f"/v1/tasks/{task_id}/cancel")
        print(msgspec.json.encode(task).decode() if options.json else f"{task_id} {task['state']}")
    return 0


def _retry(client: Client, options: argparse.Namespace) -> int:
    for task_id in options.id:
        if options.dry_run:
            task = client.call("GET", f"/v1/tasks/{task_id}")
            plain = f"{task_id} is {task['state']} and would be run again"
            would = {"id": task_id, "state": task["state"], "dry_run": True}
            print(msgspec.json.encode(would).decode() if options.json else plain)
            continue
        task = client.call("POST", f"/v1/tasks/{task_id}/retry")
        print(msgspec.json.encode(task).decode() if options.json else f"{task['id']} {task['state']} (again {task_id})")
    return 0


def _feedback(client: Client, options: argparse.Namespace) -> int:
    if options.score is None:
        print("collegium task feedback: give --score, from 0 (wrong) to 1 (right)", file=sys.stderr)
        return 2
    body = {"score": options.score, "source": options.source, "comment": options.comment}
    for task_id in options.id:
        if options.dry_run:
            task = client.call("GET", f"/v1/tasks/{task_id}")
            would = {"id": task_id, "state": task["state"], "score": options.score, "dry_run": True}
            plain = f"{task_id} is {task['state']} and would be given {options.score:g}"
            print(msgspec.json.encode(would).decode() if options.json else plain)
            continue
        told = client.call("POST", f"/v1/tasks/{task_id}/feedback", body)
        plain = f"{task_id} {told['model'] or 'nobody'} was given {told['score']:g} by {told['source']}"
        print(msgspec.json.encode(told).decode() if options.json else plain)
    return 0


def _input(client: Client, options: argparse.Namespace) -> int:
    body = {"decision": options.decision, "text": options.text, "question": options.question or ""}
    if options.decision is None and options.text is None:
        print("collegium task input: give --approve, --deny or --text", file=sys.stderr)
        return 2
    for task_id in options.id:
        if options.dry_run:
            task = client.call("GET", f"/v1/tasks/{task_id}")
            would = {"id": task_id, "state": task["state"], "dry_run": True}
            plain = f"{task_id} is {task['state']} and would be answered"
            print(msgspec.json.encode(would).decode() if options.json else plain)
            continue
        task = client.call("POST", f"/v1/tasks/{task_id}/input", {**body, "comment": options.comment})
        print(msgspec.json.encode(task).decode() if options.json else f"{task_id} {task['state']}")
    return 0
