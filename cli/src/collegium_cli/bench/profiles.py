"""Where each service process's time went during a benchmark: asking for the samples, and reading them.

The processes sample themselves (collegium_runtime.profiling); the broker and the database are not Python and are known
by their processor seconds alone. One rule: shares are of samples, and a sample is processor time used.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from collegium_runtime.profiling import FOLDER_VARIABLE, SAMPLE_SECONDS

WRITTEN_SECONDS = 10.0
SHOWN = 15
_NOT_OURS = ("nats", "postgres", "model")


@contextlib.contextmanager
def folder() -> Generator[dict[str, str]]:
    """A folder for the samples: yields the environment that asks the services for them."""
    with tempfile.TemporaryDirectory(prefix="collegium-profile-") as name:
        yield {FOLDER_VARIABLE: name}


def toggle(environment: Mapping[str, str], pids: Mapping[str, int]) -> None:
    """Begins sampling in all service processes, or ends it; nothing where none was asked for."""
    if FOLDER_VARIABLE in environment:
        for name, pid in pids.items():
            if name not in _NOT_OURS:
                os.kill(pid, signal.SIGUSR2)


def read(environment: Mapping[str, str], tasks: int) -> dict[str, Any]:
    """Returns what each process spent its time on, by function, in microseconds a task, most expensive first."""
    where = Path(environment[FOLDER_VARIABLE])
    deadline = time.monotonic() + WRITTEN_SECONDS
    while not (files := sorted(where.glob("*.folded"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {file.stem.rpartition("-")[0]: digest(file.read_text(), tasks) for file in files}


def digest(folded: str, tasks: int) -> dict[str, Any]:
    """Sums folded stacks up: by function itself, by function with what it called, and by package. Pure."""
    itself: Counter[str] = Counter()
    within: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for line in folded.splitlines():
        text, _, count = line.rpartition(" ")
        frames = text.split(";")
        itself[frames[-1]] += int(count)
        packages[_package(frames)] += int(count)
        for frame in set(frames):
            within[frame] += int(count)

    def shown(counts: Counter[str]) -> dict[str, float]:
        return {name: round(count * SAMPLE_SECONDS * 1e6 / tasks, 1) for name, count in counts.most_common(SHOWN)}

    return {
        "us_per_task": round(itself.total() * SAMPLE_SECONDS * 1e6 / tasks, 1),
        "itself": shown(itself),
        "within": shown(within),
        "packages": shown(packages),
    }


def _package(frames: list[str]) -> str:
    """Returns the service a stack belongs to: its outermost frame in one of ours that is not a shared library's."""
    libraries = ("collegium_bus", "collegium_runtime", "collegium_cli", "collegium_telemetry", "collegium_store")
    ours = [frame.partition(".")[0] for frame in frames if frame.startswith("collegium_")]
    services = [name for name in ours if name not in libraries]
    return services[0] if services else (ours[-1] if ours else "libraries")


def table(profile: Mapping[str, Any]) -> str:
    """Returns the profiles as tables for people."""
    lines: list[str] = []
    for process, one in profile.items():
        lines.append(f"\n{process}: {one['us_per_task']} µs of Python a task")
        for title in ("packages", "itself", "within"):
            lines.append(f"  {title}")
            lines.extend(f"    {value:>8.1f} µs  {name}" for name, value in one[title].items())
    return "\n".join(lines)
