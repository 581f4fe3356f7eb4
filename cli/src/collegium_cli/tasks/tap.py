"""The verb ``tap``: messages as they pass, a line each, and with ``--since`` first those that streams kept."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from datetime import UTC, datetime, timedelta

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.wire import header_of
from collegium_contracts import subjects as s
from collegium_contracts.journey import STREAMS
from collegium_settings import Settings

from collegium_cli.environment import quiet_libraries, runtime_of
from collegium_cli.tasks.operator import operator
from collegium_cli.tasks.passing import Passing, Taste, is_filter, line, overlaps, without
from collegium_cli.tasks.stream_reading import read_all

_SINCE = re.compile(r"(\d{1,6})([smhd])\Z", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints messages until interrupted; returns the exit code."""
    since = _SINCE.match(options.since) if options.since else None
    if options.since and since is None:
        print("collegium tap: --since takes a number and s, m, h or d, for instance 5m", file=sys.stderr)
        return 2
    if not is_filter(options.subject):
        print(f"collegium tap: {options.subject!r} is no subject, such as 'task.settled.>'", file=sys.stderr)
        return 2
    taste = Taste(
        tenant=options.tenant, task=options.task, raw=options.raw, content=options.content, as_json=options.json
    )
    seconds = int(since.group(1)) * _UNIT_SECONDS[since.group(2)] if since is not None else 0
    quiet_libraries()
    try:
        unread = asyncio.run(_tap(settings, options.subject, taste, seconds))
    except (BusError, OSError) as error:
        print(f"collegium tap: {error}", file=sys.stderr)
        return 1
    if unread:
        raise BrokenPipeError
    return 0


async def _tap(settings: Settings, subject: str, taste: Taste, since_seconds: int) -> bool:
    """Prints until a signal; true where whoever read the lines went away first."""
    unread = False
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # While the past is read, the present waits.
    waiting: list[Passing] | None = []

    def show(passing: Passing) -> None:
        nonlocal unread
        shown = line(passing, taste)
        if shown is None or unread:
            return
        try:
            print(shown, flush=True)
        except BrokenPipeError:
            unread = True
            stopping.set()

    def passes(subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        passing = Passing(subject.decode(errors="replace"), payload, header_of(block, s.H_CLAIM.encode()), reply)
        if waiting is not None:
            waiting.append(passing)
        else:
            show(passing)

    async with operator(settings, runtime_of(settings)) as connection:
        connection.client.subscribe_raw(subject, passes)
        await connection.flush()
        past = await _past(connection, subject, since_seconds) if since_seconds else []
        for passing in past:
            show(passing)
        present, waiting = waiting, None
        for passing in without(present, past):
            show(passing)
        await stopping.wait()
    return unread


async def _past(connection: Connection, subject: str, since_seconds: int) -> list[Passing]:
    """Returns what the streams kept of a subject, oldest first; a work queue keeps nothing for readers."""
    start = (datetime.now(UTC) - timedelta(seconds=since_seconds)).isoformat().replace("+00:00", "Z")
    found: list[Delivery] = []
    for stream in STREAMS:
        kept = stream.retention != "workqueue" and any(overlaps(subject, other) for other in stream.subjects)
        if kept:
            found += await read_all(connection, stream.name, [subject], start_time=start)
    found.sort(key=lambda delivery: (delivery.timestamp_ns, delivery.sequence))
    return [Passing(one.subject, one.payload, one.header(s.H_CLAIM)) for one in found]
