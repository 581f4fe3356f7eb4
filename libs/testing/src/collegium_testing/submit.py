"""Submits tasks over HTTP, as many as wanted or at a given rate, and says what became of every submission.

Two ways. With a number of tasks: a closed loop, each connection sends its next task after the last one's answer, and
what was refused for now (429, 503) is sent again after its ``Retry-After``. With a rate: an open loop, a task is sent
when it is due whatever became of the ones before, and nothing is sent twice. A lost connection is opened again in both.

Run as ``python -m collegium_testing.submit --url … --key … --tasks 1000 --clients 64``; prints one JSON object. One
rule: accepted means that a 200 or 202 with a task id came back; what was sent and never answered is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

RECONNECT_SECONDS = 0.02
MAX_RETRY_SECONDS = 1.0
DEADLINE_SECONDS = 3600
_ACCEPTED = (200, 202)
_FOR_NOW = (429, 503)


class SubmitReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the submissions: counts, when (Unix ms) the first was sent and the last accepted, answer times.

    ``refused`` counts refusals by status (a submission may be refused several times), ``unanswered`` the submissions
    whose connection was lost, ``late`` those of an open loop that were due while no connection was free.
    """

    accepted: int
    refused: dict[int, int]
    unanswered: int
    late: int
    first_sent_ms: float
    last_accepted_ms: float
    p50_ms: float
    p99_ms: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to submit: a number of tasks, or a rate a second for so many seconds; over how many connections."""

    url: str
    key: str
    clients: int = 64
    tasks: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    wait_seconds: int = 0
    label: str = "question"
    model: str = "auto"


class _Connection(asyncio.Protocol):
    """One connection: at most one submission on its way."""

    def __init__(self, owner: Submitter) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._sent = 0.0
        self._task_id = ""
        self._retry_seconds = 0.0
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - a TCP transport
        self._owner.free(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for each header of an answer."""
        match name.lower():
            case b"x-collegium-task-id":
                self._task_id = value.decode()
            case b"retry-after":
                with contextlib.suppress(ValueError):
                    self._retry_seconds = float(value)
            case _:
                pass

    def on_message_complete(self) -> None:
        """Called by the parser at the end of an answer."""
        status, number, took = self._parser.get_status_code(), self.number, time.perf_counter() - self._sent
        task_id, retry_seconds = self._task_id, self._retry_seconds
        self.number, self._task_id, self._retry_seconds = -1, "", 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._owner.answered(number, status, task_id, retry_seconds, took)
        self._owner.free(self)

    def send(self, number: int, request: bytes) -> None:
        """Sends one submission."""
        assert self._transport is not None
        self.number = number
        self._sent = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()


class Submitter:
    """Carries out one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        parts = urlsplit(plan.url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._numbers = itertools.count()
        self._again: deque[int] = deque()
        self._free: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._latencies: list[float] = []
        self._refused: Counter[int] = Counter()
        self._unanswered = 0
        self._late = 0
        self._on_their_way = 0
        self._unsettled = plan.tasks
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._first_sent_ms = 0.0
        self._last_accepted_ms = 0.0
        self._going = False
        self._done = asyncio.Event()
        self.ids: list[str] = []

    async def run(self) -> SubmitReport:
        """Submits everything and returns the report."""
        for _ in range(self._plan.clients):
            await self._connect()
        self._going = True
        self._first_sent_ms = time.time() * 1000
        if self._plan.rate:
            await self._at_rate()
        else:
            for connection in list(self._free):
                self._next(connection)
            await self._done.wait()
        self._going = False
        for task in self._reconnecting:
            task.cancel()
        for connection in list(self._open):
            connection.close()
        return self._report()

    async def _at_rate(self) -> None:
        """Sends what is due every few milliseconds; what finds no free connection is late and is not sent."""
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while (now := loop.time()) < began + self._plan.seconds:
            due = int((now - began) * self._plan.rate) + 1
            for number in range(sent, due):
                if self._free:
                    self._send(self._free.pop(), number)
                else:
                    self._late += 1
            sent = due
            await asyncio.sleep(max(0.001, began + sent / self._plan.rate - loop.time()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while self._on_their_way:  # noqa: ASYNC110 - the last answers, once a run
                    await asyncio.sleep(0.01)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.create_connection(lambda: _Connection(self), self._host, self._port)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
            else:
                return

    def free(self, connection: _Connection) -> None:
        """A connection can take a submission."""
        self._open.add(connection)
        if self._going and not self._plan.rate:
            self._next(connection)
        else:
            self._free.append(connection)

    def _next(self, connection: _Connection) -> None:
        if self._again:
            self._send(connection, self._again.popleft())
            return
        number = next(self._numbers)
        if number < self._plan.tasks:
            self._send(connection, number)
        elif connection not in self._free:
            self._free.append(connection)

    def _send(self, connection: _Connection, number: int) -> None:
        if connection in self._free:
            self._free.remove(connection)
        self._on_their_way += 1
        connection.send(number, self._request(number))

    def _request(self, number: int) -> bytes:
        plan = self._plan
        body = msgspec.json.encode(
            {
                "model": plan.model,
                "input": f"{plan.label} {number}: what is the capital of France? Answer in one short sentence.",
                "deadline_seconds": DEADLINE_SECONDS,
                "cache": "off",
            }
        )
        wait = f"prefer: wait={plan.wait_seconds}\r\n" if plan.wait_seconds else ""
        head = (
            f"POST /v1/tasks HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {plan.key}\r\n{wait}content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def answered(self, number: int, status: int, task_id: str, retry_seconds: float, took_seconds: float) -> None:
        """A submission was answered."""
        self._on_their_way -= 1
        if status in _ACCEPTED and task_id:
            self._latencies.append(took_seconds)
            self._last_accepted_ms = time.time() * 1000
            self.ids.append(task_id)
            self._settle_one()
            return
        self._refused[status] += 1
        if not self._plan.rate and status in _FOR_NOW:
            pause = min(retry_seconds or MAX_RETRY_SECONDS, MAX_RETRY_SECONDS)
            asyncio.get_running_loop().call_later(pause, self._send_again, number)
        else:
            self._settle_one()

    def _send_again(self, number: int) -> None:
        if self._free:
            self._send(self._free.pop(), number)
        else:
            self._again.append(number)

    def _settle_one(self) -> None:
        self._unsettled -= 1
        if self._unsettled == 0:
            self._done.set()

    def lost(self, connection: _Connection) -> None:
        """A connection ended; its submission, if one was on its way, has no answer and is not sent again."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.number >= 0:
            self._on_their_way -= 1
            self._unanswered += 1
            self._settle_one()
        if self._going:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    def _report(self) -> SubmitReport:
        ordered = sorted(self._latencies)
        return SubmitReport(
            accepted=len(self.ids),
            refused=dict(self._refused),
            unanswered=self._unanswered,
            late=self._late,
            first_sent_ms=self._first_sent_ms,
            last_accepted_ms=self._last_accepted_ms,
            p50_ms=percentile_ms(ordered, 0.50),
            p99_ms=percentile_ms(ordered, 0.99),
        )


def percentile_ms(ordered: Sequence[float], share: float) -> float:
    """Returns a percentile of ordered seconds in milliseconds; 0 where there are none."""
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 3)


def main() -> None:
    """Runs the tool from the command line."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.submit", description=__doc__)
    parser.add_argument("--url", required=True, help="the gateway's address, without a path")
    parser.add_argument("--key", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="tasks a second, whatever becomes of them")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--wait-seconds", type=int, default=0, help="wait this long for each task (Prefer: wait)")
    parser.add_argument("--label", default="question")
    parser.add_argument("--ids", type=Path, help="where to write the ids of what was accepted, one a line")
    options = parser.parse_args()
    values = {name: value for name, value in vars(options).items() if name != "ids"}
    if not (options.tasks or (options.rate and options.seconds)):
        parser.error("give --tasks, or --rate with --seconds")

    async def submit() -> SubmitReport:
        submitter = Submitter(Plan(**values))
        report = await submitter.run()
        if options.ids is not None:
            options.ids.write_text("".join(f"{task_id}\n" for task_id in submitter.ids))
        return report

    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(submit())) + b"\n")


if __name__ == "__main__":
    main()
