"""Celery + Redis. Run by `bench tasks`; the workers import this module as their application."""

import os
import subprocess
import sys
import time
from pathlib import Path

import urllib3
from celery import Celery
from measuring import BODY, STALLED_SECONDS, options, report, tree_cpu_seconds
from redis import Redis

WORKERS = 2
BROKER = os.environ.get("PEER_BROKER", "redis://127.0.0.1")
URL = os.environ.get("PEER_URL", "")

app = Celery("celery_peer", broker=f"{BROKER}/0", backend=f"{BROKER}/1")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=32,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    task_serializer="json",
    result_serializer="json",
    broker_connection_retry_on_startup=True,
)
http = urllib3.PoolManager(maxsize=4)


@app.task(name="answer")
def answer(submitted):
    response = http.request("POST", URL, json=BODY)
    if response.status != 200:
        raise RuntimeError(f"the endpoint answered {response.status}")
    text = response.json()["choices"][0]["message"]["content"]
    return {"text": text, "submitted": submitted, "ended": time.time()}


def main():
    chosen = options()
    environment = {**os.environ, "PEER_BROKER": chosen.broker, "PEER_URL": chosen.url}
    if "PEER_BROKER" not in os.environ:
        # The application reads its addresses when the module is loaded, here as in the workers.
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    command = [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "-c", str(WORKERS), "-l", "ERROR"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    worker = subprocess.Popen(command, env=environment, cwd=Path(__file__).parent, stdout=sys.stderr)
    try:
        answer.apply_async((time.time(),)).get(timeout=60)
        results = Redis.from_url(f"{chosen.broker}/1")
        results.flushdb()
        cpu, began = tree_cpu_seconds(worker.pid), time.time()
        for _ in range(chosen.tasks):
            answer.apply_async((time.time(),))
        submitted = time.time()
        completed = stored(results, chosen.tasks)
        values = [app.backend.decode(value)["result"] for value in results.mget(results.keys("celery-task-meta-*"))]
        report(
            tasks=chosen.tasks,
            began=began,
            submitted=submitted,
            ended=max(value["ended"] for value in values),
            completed=completed,
            latencies=[value["ended"] - value["submitted"] for value in values],
            workers_cpu=tree_cpu_seconds(worker.pid) - cpu,
        )
    finally:
        worker.terminate()
        worker.wait(30)


def stored(results, expected):
    """Waits until as many results are stored, or none is added for a while; returns how many are."""
    count, changed = 0, time.time()
    while count < expected and time.time() - changed < STALLED_SECONDS:
        if (now := results.dbsize()) != count:
            count, changed = now, time.time()
        time.sleep(0.1)
    return min(count, expected)


if __name__ == "__main__":
    main()
