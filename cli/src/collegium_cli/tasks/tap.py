"""The verb ``tap``: messages as they pass, a line each, and with ``--since`` first those that streams kept."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.reading import read_all
from collegium_bus.wire import header_of
from collegium_contracts import subjects as s
from collegium_contracts.journey import STREAMS
from collegium_settings import Settings

from collegium_cli.environment import quiet_libraries, runtime_of
from collegium_cli.printing import failed
from collegium_cli.tasks.opening import Opening
from collegium_cli.tasks.operator import operator
from collegium_cli.tasks.passing import Passing, Taste, is_filter, line, open_unsealed, overlaps, without

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
        return failed("collegium tap", error)
    if unread:
        raise BrokenPipeError
    return 0


async def _tap(settings: Settings, subject: str, taste: Taste, since_seconds: int) -> bool:
    """Prints until a signal; true where whoever read the lines went away first."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # While the past is read, or a large message is fetched, the present waits.
    waiting: asyncio.Queue[Passing] = asyncio.Queue()

    def passes(subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        claim = header_of(block, s.H_CLAIM.encode())
        waiting.put_nowait(Passing(subject.decode(errors="replace"), payload, claim, reply))

    async with operator(settings, runtime_of(settings)) as connection:
        connection.client.subscribe_raw(subject, passes)
        await connection.flush()
        async with _opening(connection, settings, taste) as opening:
            past = await _past(connection, subject, since_seconds) if since_seconds else []
            showing = asyncio.create_task(_show(past, waiting, taste, opening), name="show")
            stopped = asyncio.create_task(stopping.wait(), name="stopped")
            done, running = await asyncio.wait((showing, stopped), return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                task.cancel()
            await asyncio.wait((showing, stopped))
            if showing in done:
                showing.result()
    return showing in done


@contextlib.asynccontextmanager
async def _opening(connection: Connection, settings: Settings, taste: Taste) -> AsyncGenerator[Opening | None]:
    """The keys where contents were asked for; raw bytes stay as they came."""
    if not taste.content or taste.raw:
        yield None
        return
    opening = Opening(connection, settings)
    try:
        await opening.start()
        yield opening
    finally:
        await opening.stop()


async def _show(past: list[Passing], waiting: asyncio.Queue[Passing], taste: Taste, opening: Opening | None) -> None:
    """Prints what was, then what passes; returns where whoever read the lines went away."""
    present = [waiting.get_nowait() for _ in range(waiting.qsize())]
    for passing in (*past, *without(present, past)):
        if not await _print(passing, taste, opening):
            return
    while await _print(await waiting.get(), taste, opening):
        pass


async def _print(passing: Passing, taste: Taste, opening: Opening | None) -> bool:
    if opening is not None:
        passing = await opening.ready(passing)
    shown = line(passing, taste, opening.open if opening is not None else open_unsealed)
    try:
        if shown is not None:
            print(shown, flush=True)
    except BrokenPipeError:
        return False
    return True


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
