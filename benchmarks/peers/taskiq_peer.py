"""taskiq + NATS JetStream. Run by `bench tasks`; the workers import this module's broker."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
from measuring import BODY, STALLED_SECONDS, options, report, tree_cpu_seconds
from nats.js.api import ConsumerConfig
from taskiq import TaskiqEvents
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

WORKERS = 2
AT_A_TIME = 64
SAMPLE = 500
BROKER = os.environ.get("PEER_BROKER", "nats://127.0.0.1:4222")
URL = os.environ.get("PEER_URL", "")

broker = PullBasedJetStreamBroker(
    [BROKER],
    stream_name="tasks",
    durable="workers",
    consumer_config=ConsumerConfig(durable_name="workers", ack_wait=30, max_ack_pending=2000),
    pull_consume_batch=32,
    pull_consume_timeout=1,
).with_result_backend(NATSObjectStoreResultBackend([BROKER]))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_session(state):
    state.http = aiohttp.ClientSession()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_session(state):
    await state.http.close()


@broker.task(task_name="answer")
async def answer(submitted):
    async with broker.state.http.post(URL, json=BODY) as response:
        response.raise_for_status()
        text = (await response.json())["choices"][0]["message"]["content"]
    return {"text": text, "submitted": submitted, "ended": time.time()}


async def run(chosen, worker):
    await broker.startup()
    warm = await answer.kiq(time.time())
    await warm.wait_result(timeout=60)
    cpu, began = tree_cpu_seconds(worker.pid), time.time()
    kicked = []
    left = iter(range(chosen.tasks))

    async def submit():
        for _ in left:
            kicked.append(await answer.kiq(time.time()))

    await asyncio.gather(*(submit() for _ in range(chosen.clients)))
    submitted = time.time()
    completed, ended = await acknowledged(chosen.tasks)
    sample = random.sample(kicked, min(SAMPLE, len(kicked)))
    values = [(await task.get_result()).return_value for task in sample]
    report(
        tasks=chosen.tasks,
        began=began,
        submitted=submitted,
        ended=ended,
        completed=completed,
        latencies=[value["ended"] - value["submitted"] for value in values],
        workers_cpu=tree_cpu_seconds(worker.pid) - cpu,
    )
    await broker.shutdown()


async def acknowledged(expected):
    """Waits until so many tasks are acknowledged, their results saved by then; returns how many and since when."""
    count, changed = 0, time.time()
    while time.time() - changed < STALLED_SECONDS:
        info = await broker.js.consumer_info("tasks", "workers")
        # Less the warm-up's.
        now = info.delivered.consumer_seq - info.num_ack_pending - 1
        if now != count:
            count, changed = now, time.time()
        if count >= expected and info.num_pending == 0:
            break
        await asyncio.sleep(0.05)
    return min(count, expected), changed


def main():
    chosen = options()
    environment = {**os.environ, "PEER_BROKER": chosen.broker, "PEER_URL": chosen.url}
    command = [sys.executable, "-m", "taskiq", "worker", "taskiq_peer:broker", "--workers", str(WORKERS)]
    command += ["--max-async-tasks", str(AT_A_TIME), "--ack-type", "when_saved", "--log-level", "ERROR"]
    if "PEER_BROKER" not in os.environ:
        # The broker object reads its address when the module is loaded, here as in the workers.
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    worker = subprocess.Popen(command, env=environment, cwd=Path(__file__).parent, stdout=sys.stderr)
    try:
        asyncio.run(run(chosen, worker))
    finally:
        worker.terminate()
        worker.wait(30)


if __name__ == "__main__":
    main()
