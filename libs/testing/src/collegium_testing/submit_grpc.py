"""Submits tasks over gRPC: the closed loop of submit.py through the other door, with the same report.

Run as ``python -m collegium_testing.submit_grpc --url HOST:PORT --key … --tasks 1000 --clients 64``. One rule: the
client library is the official one, and its cost is this process's, not the platform's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
import msgspec
import uvloop
from collegium_protocol.v1.tasks_pb2 import SubmitRequest
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub

from collegium_testing.submit import DEADLINE_SECONDS, MAX_RETRY_SECONDS, SubmitReport, percentile_ms

# Canonical codes of what was refused for now, and what HTTP calls the same.
_FOR_NOW = {grpc.StatusCode.RESOURCE_EXHAUSTED: 429, grpc.StatusCode.UNAVAILABLE: 503}
# One connection carries so many calls at a time before its lock is what is measured.
CALLS_A_CHANNEL = 32


async def run(url: str, key: str, *, tasks: int, clients: int, wait_seconds: int) -> tuple[SubmitReport, list[str]]:
    """Submits the tasks and returns the report and the ids of what was accepted."""
    metadata = (("authorization", f"Bearer {key}"),)
    channels = [grpc.aio.insecure_channel(url) for _ in range(-(-clients // CALLS_A_CHANNEL))]
    ids: list[str] = []
    latencies: list[float] = []
    refused: Counter[int] = Counter()
    numbers = iter(range(tasks))
    last_accepted_ms = 0.0

    async def client(stub: TasksStub) -> None:
        nonlocal last_accepted_ms
        for number in numbers:
            request = SubmitRequest(
                model="auto",
                input=f"question {number}: what is the capital of France? Answer in one short sentence.",
                deadline_seconds=DEADLINE_SECONDS,
                cache="off",
            )
            if wait_seconds:
                request.wait_seconds = wait_seconds
            while True:
                sent = time.perf_counter()
                try:
                    task = await stub.Submit(request, metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    refused[_FOR_NOW.get(error.code(), 0)] += 1
                    if error.code() not in _FOR_NOW:
                        break
                    await asyncio.sleep(MAX_RETRY_SECONDS)
                    continue
                latencies.append(time.perf_counter() - sent)
                last_accepted_ms = time.time() * 1000
                ids.append(task.id)
                break

    first_sent_ms = time.time() * 1000
    stubs = itertools.cycle([TasksStub(channel) for channel in channels])
    await asyncio.gather(*(client(next(stubs)) for _ in range(clients)))
    for channel in channels:
        await channel.close()
    ordered = sorted(latencies)
    report = SubmitReport(
        accepted=len(ids),
        refused=dict(refused),
        unanswered=0,
        late=0,
        first_sent_ms=first_sent_ms,
        last_accepted_ms=last_accepted_ms,
        p50_ms=percentile_ms(ordered, 0.50),
        p99_ms=percentile_ms(ordered, 0.99),
    )
    return report, ids


def main() -> None:
    """Runs the tool from the command line."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.submit_grpc", description=__doc__)
    parser.add_argument("--url", required=True, help="host and port of the gRPC door")
    parser.add_argument("--key", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--wait-seconds", type=int, default=0)
    parser.add_argument("--ids", type=Path, help="where to write the ids of what was accepted, one a line")
    chosen = parser.parse_args()

    async def submit() -> tuple[SubmitReport, list[str]]:
        return await run(
            chosen.url, chosen.key, tasks=chosen.tasks, clients=chosen.clients, wait_seconds=chosen.wait_seconds
        )

    report, ids = uvloop.run(submit())
    if chosen.ids is not None:
        chosen.ids.write_text("".join(f"{task_id}\n" for task_id in ids))
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")


if __name__ == "__main__":
    main()
