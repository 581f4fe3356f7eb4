"""Single services in processes of their own, beside a running ``up`` or on given addresses.

    worker = ServiceProcess.start("worker-pool", platform, environment={"COLLEGIUM_NATS__URL": proxy_url})

Unlike those of ``up``, nobody starts them again: a test that kills one starts the next itself, or does without. One
rule: a process that is stopped by a signal is continued before it is ended.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

START_SECONDS = 45.0
STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_numbers = itertools.count(1)


class ServiceProcess:
    """A running ``collegium serve``: its process, its admin ports, and ways to hurt it."""

    def __init__(self, services: str, process: subprocess.Popen[bytes], report: Path) -> None:
        self.services = services
        self.process = process
        self._report = report

    @classmethod
    def start(
        cls,
        services: str,
        folder: Path,
        config: Path,
        *,
        environment: Mapping[str, str] | None = None,
        is_awaited: bool = True,
    ) -> Self:
        """Starts services (by comma) on a platform's data folder and waits until they are started.

        ``environment`` is added to this process's own. Raises RuntimeError with the log's end where they do not start.
        """
        name = f"{services.replace(',', '-')}-{next(_numbers)}"
        report = folder / "run" / f"chaos-{name}.ready"
        report.unlink(missing_ok=True)
        arguments = ["serve", services, "--data", str(folder), "--config", str(config), "--report", str(report)]
        with (folder / "logs" / f"chaos-{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "collegium_cli", *arguments, "--parent", str(os.getpid())],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        started = cls(services, process, report)
        if is_awaited:
            started.wait_started(Path(log.name))
        return started

    def wait_started(self, log: Path) -> None:
        """Waits for the report of a started process."""
        deadline = time.monotonic() + START_SECONDS
        while not self._report.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.services} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(_POLL_SECONDS)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def admin_port(self, service: str) -> int:
        """Returns the admin port of one of its services."""
        report: dict[str, Any] = msgspec.json.decode(self._report.read_bytes())
        port: int = report["admin_ports"][service]
        return port

    def suspend(self) -> None:
        """Stops the process where it stands (SIGSTOP): it is a zombie to everybody else until resumed."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kills the process (SIGKILL); doing it twice is no error."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ends it as an operator would, by force after a while; returns its exit code."""
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(STOP_SECONDS)
        self.kill()
        return self.process.returncode
