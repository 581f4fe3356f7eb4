"""A whole platform in processes of its own, as ``collegium up`` runs it, for journeys, chaos and trials.

The model is the simulator and the traces go to a receiver, both in this process, so that a test can script the one and
read the other. One rule: nothing of the platform runs in the test's process; what a test sees, a user would see.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import string
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from collegium_bus.connection import connect
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.state import Breaker

READY_SECONDS = 60.0
STOP_SECONDS = 25.0
_ALPHABET = string.ascii_lowercase + string.digits


def make_key(name: str) -> str:
    """Returns a well-formed API key with a random secret; its public id begins with ``name``."""
    public = (name + secrets.token_hex(8))[:12]
    return f"sk-clg-{public}-" + "".join(secrets.choice(_ALPHABET) for _ in range(48))


def configuration(
    base_url: str, *, otlp_endpoint: str | None = None, tenants: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    """Returns a configuration with one simulated model ``sim``, and tenants by id with their keys.

    Without an answer cache, because tests ask the same again and count what reaches the model; ``cache={}`` brings it
    back.
    """
    return {
        "embedded_model": False,
        "cache": {"exact": False},
        "http": {"port": 0, "max_body_bytes": "1MB"},
        "grpc": {"port": 0},
        "telemetry": {"otlp_endpoint": otlp_endpoint, "sample_ratio": 1.0},
        "models": [
            {
                "name": "sim",
                "base_url": base_url,
                "rank": "teacher",
                "timeout_seconds": 30,
                "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"},
            }
        ],
        "tenants": [{"id": tenant, "tier": "pro", "api_key": key} for tenant, key in tenants.items()],
        **more,
    }


class ServedProcess:
    """A running ``collegium serve``: its process and its ready line."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.process = process
        self.ready = ready

    @property
    def http(self) -> str:
        """Its HTTP door, where it has one."""
        address: str = self.ready["http"]
        return address


class PlatformProcess:
    """A running ``collegium up``: its ready line, and ways to end it well or badly."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, Any], folder: Path) -> None:
        self.process = process
        self.ready = ready
        self.folder = folder

    @property
    def http(self) -> str:
        """The gateway's address."""
        address: str = self.ready["http"]
        return address

    @property
    def admin_key(self) -> str:
        """The operator's key."""
        return Path(self.ready["admin_key_file"]).read_text().strip()

    def pids(self) -> dict[str, int]:
        """The pids as ``runtime.json`` has them now."""
        runtime: dict[str, Any] = msgspec.json.decode((self.folder / "runtime.json").read_bytes())
        pids: dict[str, int] = runtime["pids"]
        return pids

    def stop(self) -> int:
        """Ends it as an operator would, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self._close()

    @contextlib.contextmanager
    def serving(self, service: str, environment: Mapping[str, str] | None = None) -> Generator[ServedProcess]:
        """One more replica of a service, in a process of its own that joins this platform; free ports.

        ``environment`` is added to this process's own.
        """
        errors = self.folder.parent / f"{self.folder.name}.serve.log"
        command = [sys.executable, "-m", "collegium_cli", "serve", service, "--json", "--data", str(self.folder)]
        command += ["--config", str(_config_file(self.folder)), "--http-port", "0", "--grpc-port", "0"]
        with errors.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith('{"ready":'):
                    yield ServedProcess(process, msgspec.json.decode(line))
                    return
            raise RuntimeError(f"{service} did not start:\n{errors.read_text()[-4000:]}")
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
            process.stdout.close()

    def kill_everything(self) -> None:
        """Kills the supervisor and all its children at once, as a crash of the machine's user session would."""
        pids = {self.process.pid, *self.pids().values()}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    @property
    def config_file(self) -> Path:
        """The configuration it was started with."""
        return _config_file(self.folder)

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


async def close_breakers(platform: PlatformProcess) -> None:
    """Closes every circuit breaker, so that what one test broke does not keep the next one from its model."""
    runtime: dict[str, Any] = msgspec.json.decode((platform.folder / "runtime.json").read_bytes())
    seed = Path(runtime["credentials"]["operator"]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    connection = await connect(runtime["nats"], "operator", nkey_seed=seed)
    try:
        bucket = Bucket(connection, s.KV_BREAKERS)
        found: list[object] = []
        watch = bucket.watch(lambda entry: found.append(codec.state.decode(entry.value)))
        await watch.start()
        await watch.stop()
        for breaker in {one.model: one for one in found if isinstance(one, Breaker)}.values():
            if breaker.failures_ms or breaker.open_until_ms:
                await bucket.put(s.state_key(breaker.model), codec.encode(Breaker(model=breaker.model)))
    finally:
        await connection.close()


def _config_file(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.yaml"


def start_platform(
    folder: Path,
    config: Mapping[str, Any],
    *,
    only: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> PlatformProcess:
    """Runs ``collegium up`` on a folder until it is ready; raises RuntimeError with its log where it is not.

    ``only`` limits the services (empty: all); ``environment`` is added to this process's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = _config_file(folder)
    file.write_bytes(msgspec.json.encode(config))
    errors = folder.parent / f"{folder.name}.up.log"
    arguments = ["up", "--json", "--config", str(file), "--data", str(folder)]
    if only:
        arguments += ["--only", ",".join(only)]
    with errors.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "collegium_cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(environment or {})},
        )
    assert process.stdout is not None
    deadline = time.monotonic() + READY_SECONDS
    line = process.stdout.readline()
    if not line or time.monotonic() > deadline:
        process.kill()
        process.wait()
        process.stdout.close()
        raise RuntimeError(f"the platform did not start:\n{errors.read_text()[-4000:]}")
    return PlatformProcess(process, msgspec.json.decode(line), folder)


@contextlib.contextmanager
def running_platform(
    folder: Path,
    config: Mapping[str, Any],
    *,
    only: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Generator[PlatformProcess]:
    """A platform for the length of a block; ended in the end whatever happened in between."""
    platform = start_platform(folder, config, only=only, environment=environment)
    try:
        yield platform
    finally:
        if platform.process.poll() is None:
            platform.stop()
