"""What a benchmark runs on: the model simulator, a trace receiver where calls are traced, and a whole platform.

Each in processes of its own, on free ports, ended with the block. One rule: what is measured is what a user runs; only
the model is simulated.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from collegium_runtime import runtime_file
from collegium_runtime.runtime_file import Runtime

from collegium_cli.bench.processes import by_process

SERVICE_READY_SECONDS = 45.0
STOP_SECONDS = 30.0
_ALPHABET = string.ascii_lowercase + string.digits


class StageError(Exception):
    """The stage cannot be set up; the text says why."""


class StageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the platform is set up.

    ``tenants`` maps a tenant to its tier; ``apart`` lists services that get processes of their own (a service may be
    listed several times: replicas); ``delay_ms`` and ``concurrency`` are the model's; ``environment`` goes to all.
    """

    tenants: Mapping[str, str]
    delay_ms: float = 0.0
    concurrency: int | None = None
    sample_ratio: float = 0.0
    apart: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    keep: Path | None = None


class Stage(msgspec.Struct, kw_only=True):
    """A running platform: its folder, its simulator, its tenants' keys, and the processes it consists of."""

    folder: Path
    data: Path
    config: Path
    http: str
    grpc: str
    simulator: dict[str, Any]
    keys: dict[str, str]
    replicas: dict[str, subprocess.Popen[bytes]]

    def runtime(self) -> Runtime:
        """Returns what the platform says of itself now: pids change when something dies."""
        runtime = runtime_file.read(self.data)
        assert runtime is not None, "a running platform has written its runtime file"
        return runtime

    def pids(self) -> dict[str, int]:
        """Returns the platform's processes by what they run, as they are now."""
        found = by_process(self.runtime().pids)
        found.update({name: process.pid for name, process in self.replicas.items()})
        return found


def make_key(name: str) -> str:
    """Returns a well-formed key with a random secret; its public id begins with ``name``."""
    public = (name + secrets.token_hex(8))[:12]
    return f"sk-clg-{public}-" + "".join(secrets.choice(_ALPHABET) for _ in range(48))


@contextlib.contextmanager
def simulator(delay_ms: float = 0.0) -> Generator[dict[str, Any]]:
    """Runs the model simulator; yields its ready line."""
    with child("collegium_testing.simulator", "--model", "sim", "--delay-ms", str(delay_ms)) as ready:
        yield ready


@contextlib.contextmanager
def stage(options: StageOptions) -> Generator[Stage]:
    """Runs simulator and platform for the length of a block."""
    with contextlib.ExitStack() as stack:
        folder = options.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "data").exists():
            raise StageError(f"{folder} holds an earlier run; name a folder that is new")
        model = stack.enter_context(simulator(options.delay_ms))
        receiver: dict[str, Any] = {"endpoint": None}
        if options.sample_ratio > 0:
            receiver = stack.enter_context(child("collegium_testing.otlp", "--port", "0"))
        keys = {tenant: make_key(tenant) for tenant in options.tenants}
        config = folder / "collegium.yaml"
        config.write_text(json.dumps(_config(options, model["base_url"], receiver["endpoint"], keys)))
        data = folder / "data"
        up = stack.enter_context(_platform(config, data, options))
        running = Stage(
            folder=folder,
            data=data,
            config=config,
            http=up["http"],
            grpc=up["grpc"],
            simulator=model,
            keys=keys,
            replicas={},
        )
        for number, service in enumerate(options.apart, start=1):
            name = f"{service}-{number}"
            running.replicas[name] = stack.enter_context(replica(running, service, name, options.environment))
        yield running


def _config(options: StageOptions, base_url: str, endpoint: str | None, keys: Mapping[str, str]) -> dict[str, Any]:
    return {
        "http": {"port": 0},
        "grpc": {"port": 0},
        "embedded_model": False,
        "telemetry": {"otlp_endpoint": endpoint, "sample_ratio": options.sample_ratio},
        "models": [
            {
                "name": "sim",
                "base_url": base_url,
                "rank": "teacher",
                "price": {"input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60"},
                "limits": {"concurrency": options.concurrency},
            }
        ],
        "tenants": [{"id": tenant, "tier": tier, "api_key": keys[tenant]} for tenant, tier in options.tenants.items()],
    }


@contextlib.contextmanager
def _platform(config: Path, data: Path, options: StageOptions) -> Generator[dict[str, Any]]:
    arguments = ["up", "--json", "--config", str(config), "--data", str(data)]
    if options.apart:
        from collegium_contracts.journey import SERVICES

        arguments += ["--only", ",".join(service for service in SERVICES if service not in options.apart)]
    with child("collegium_cli", *arguments, environment=options.environment) as ready:
        yield ready


@contextlib.contextmanager
def replica(
    running: Stage, service: str, name: str, environment: Mapping[str, str]
) -> Generator[subprocess.Popen[bytes]]:
    """Runs one service in a process of its own until the block ends; ready when yielded."""
    report = running.folder / f"{name}.ready"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "collegium_cli", "serve", service, "--config", str(running.config)]
    command += ["--data", str(running.data), "--report", str(report), "--parent", str(os.getpid())]
    with (running.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})  # noqa: S603 - ours
    try:
        deadline = time.monotonic() + SERVICE_READY_SECONDS
        while not report.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StageError(f"{name} did not start; see {log.name}")
            time.sleep(0.02)
        yield process
    finally:
        _end(process)


@contextlib.contextmanager
def child(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Generator[dict[str, Any]]:
    """Runs one of our modules until the block ends; yields the JSON of its ready line, with its ``pid``."""
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise StageError(f"{module} ended before it was ready; its messages are above")
        yield {"pid": process.pid, **json.loads(line)}
    finally:
        _end(process)
        process.stdout.close()


class Running(NamedTuple):
    """A platform by its doors: its address, a tenant's key, and the operator's."""

    http: str
    key: str
    admin_key: str

    def session(self, key: str) -> aiohttp.ClientSession:
        """Returns a session with a key."""
        return aiohttp.ClientSession(self.http, headers={"Authorization": f"Bearer {key}"})


@contextlib.contextmanager
def configured(folder: Path, settings: Mapping[str, Any], key: str) -> Generator[Running]:
    """Runs a platform with settings of its own, and its data in ``folder``, until the block ends."""
    config = folder / "collegium.yaml"
    config.write_text(json.dumps(settings))
    with child("collegium_cli", "up", "--json", "--config", str(config), "--data", str(folder / "data")) as ready:
        yield Running(ready["http"], key, Path(ready["admin_key_file"]).read_text().strip())


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
