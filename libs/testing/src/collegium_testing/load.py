"""A closed-loop HTTP load tool that costs little itself: one connection a client, the next request after each answer.

Meant for measuring servers on the same machine, so it does as little as it can per answer (raw protocol, httptools).
Run as ``python -m collegium_testing.load --url … --body FILE --clients 16 --seconds 5``; prints one JSON object. One
rule: every answer counts, and answers other than 200 are reported apart.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

CONNECT_SECONDS = 10.0


class LoadReport(msgspec.Struct, frozen=True):
    """What a run measured: answers a second, latencies in milliseconds, and answers by status (0: connection lost)."""

    clients: int
    seconds: float
    requests: int
    requests_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[int, int]
    p95_ms: float = 0.0


class _Client(asyncio.Protocol):
    """One connection in a closed loop."""

    def __init__(self, request: bytes, latencies: list[float], statuses: Counter[int]) -> None:
        self._request = request
        self._latencies = latencies
        self._statuses = statuses
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0
        self.stopping = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - a TCP transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self._statuses[0] += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of an answer."""
        self._latencies.append(perf_counter() - self._sent)
        self._statuses[self._parser.get_status_code()] += 1
        if self.stopping:
            assert self._transport is not None
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent = perf_counter()
        self._transport.write(self._request)


async def run(
    url: str, body: bytes, headers: Mapping[str, str], *, clients: int, seconds: float, warm_up_seconds: float = 1.0
) -> LoadReport:
    """Loads a URL with POSTs of one body from ``clients`` connections and reports what was measured after warm-up."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    lines = [
        f"POST {parts.path or '/'} HTTP/1.1",
        f"host: {host}:{port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    loop = asyncio.get_running_loop()
    protocols: list[_Client] = []
    for _ in range(clients):
        async with asyncio.timeout(CONNECT_SECONDS):
            _, protocol = await loop.create_connection(lambda: _Client(request, latencies, statuses), host, port)
        protocols.append(protocol)
    await asyncio.sleep(warm_up_seconds)
    latencies.clear()
    statuses.clear()
    began = perf_counter()
    await asyncio.sleep(seconds)
    took = perf_counter() - began
    measured, counted = sorted(latencies), Counter(statuses)
    for protocol in protocols:
        protocol.stopping = True
    async with asyncio.timeout(60):
        await asyncio.gather(*(protocol.closed for protocol in protocols))
    return LoadReport(
        clients=clients,
        seconds=round(took, 3),
        requests=len(measured),
        requests_per_second=round(len(measured) / took, 1),
        p50_ms=_percentile(measured, 0.50),
        p90_ms=_percentile(measured, 0.90),
        p99_ms=_percentile(measured, 0.99),
        max_ms=_percentile(measured, 1.0),
        statuses=dict(counted),
        p95_ms=_percentile(measured, 0.95),
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return 0.0
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 3)


def main() -> None:
    """Runs the tool from the command line."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--body", required=True, type=Path, help="file with the JSON body")
    parser.add_argument("--header", action="append", default=[], help="name: value")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in options.header)
    report = uvloop.run(
        run(options.url, options.body.read_bytes(), headers, clients=options.clients, seconds=options.seconds)
    )
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")


if __name__ == "__main__":
    main()
