"""The same work on other task queues, for comparison: scripts under benchmarks/peers, in an environment of their own.

Each script starts its workers, submits the tasks and prints one JSON report. Their servers (Redis, the platform's own
nats-server) are started here on free ports. One rule: the project does not need any of this; a peer that is not there
is reported as such.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
from collegium_servers import nats

from collegium_cli.bench import processes

SCRIPTS = Path(__file__).parents[4] / "benchmarks" / "peers"
NAMES = ("celery", "taskiq", "bare")
SERVER_READY_SECONDS = 10.0
RUN_SECONDS = 900.0


class PeerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which peers, the Python that has them installed (none: this one), and Redis's program."""

    names: tuple[str, ...] = ()
    python: Path | None = None
    redis: str = "redis-server"


def run_peers(options: PeerOptions, base_url: str, tasks: int, clients: int) -> dict[str, Any]:
    """Runs each peer in turn against the simulator; a report or an error each."""
    reports: dict[str, Any] = {}
    for name in options.names:
        print(f"  peer {name} …", file=sys.stderr, flush=True)
        try:
            reports[name] = _run(name, options, base_url, tasks, clients)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            reports[name] = {"error": str(error)}
    return reports


def _run(name: str, options: PeerOptions, base_url: str, tasks: int, clients: int) -> dict[str, Any]:
    if name not in NAMES:
        raise RuntimeError(f"{name} is not one of {', '.join(NAMES)}")
    python = str(options.python) if options.python is not None and name != "bare" else sys.executable
    with tempfile.TemporaryDirectory(prefix="collegium-peer-") as folder, contextlib.ExitStack() as stack:
        server = _redis if name == "celery" else _nats
        broker, process = stack.enter_context(server(Path(folder), options))
        command = [python, str(SCRIPTS / f"{name}_peer.py"), "--url", f"{base_url}/chat/completions"]
        command += ["--broker", broker]
        command += ["--tasks", str(tasks), "--clients", str(clients)]
        finished = subprocess.run(  # noqa: S603 - our own script
            command, check=False, capture_output=True, text=True, timeout=RUN_SECONDS, cwd=SCRIPTS
        )
        if finished.returncode != 0:
            raise RuntimeError(f"{name}: {finished.stderr.strip()[-2000:]}")
        report: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
        report["broker_cpu_seconds"] = processes.cpu_seconds({"broker": process.pid})["broker"]
        return report


@contextlib.contextmanager
def _redis(folder: Path, options: PeerOptions) -> Generator[tuple[str, subprocess.Popen[bytes]]]:
    program = shutil.which(options.redis)
    if program is None:
        raise RuntimeError(f"{options.redis} is not on this machine (Debian: apt-get install redis-server)")
    port = _free_port()
    # Every write in the append-only file, synced each second: what its documentation recommends for queues.
    command = [program, "--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", ""]
    with _server(command, port) as process:
        yield f"redis://127.0.0.1:{port}", process


@contextlib.contextmanager
def _nats(folder: Path, _options: PeerOptions) -> Generator[tuple[str, subprocess.Popen[bytes]]]:
    port = _free_port()
    command = [str(nats.binary_path()), "-js", "-sd", str(folder), "-a", "127.0.0.1", "-p", str(port)]
    with _server(command, port) as process:
        yield f"nats://127.0.0.1:{port}", process


@contextlib.contextmanager
def _server(command: list[str], port: int) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - a given program
    try:
        deadline = time.monotonic() + SERVER_READY_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
