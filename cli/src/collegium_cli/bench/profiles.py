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
SHOWN = 20
EVERYWHERE = 0.95
_OURS = "collegium_"
_NOT_OURS = ("nats", "postgres", "model")


@contextlib.contextmanager
def folder(keep: Path | None) -> Generator[dict[str, str]]:
    """A folder for the samples, kept where one is named: yields the environment that asks the services for them."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield {FOLDER_VARIABLE: str(keep)}
        return
    with tempfile.TemporaryDirectory(prefix="collegium-profile-") as name:
        yield {FOLDER_VARIABLE: name}


def toggle(environment: Mapping[str, str], pids: Mapping[str, int]) -> int:
    """Begins sampling in all service processes, or ends it; returns how many, none where it was not asked for."""
    if FOLDER_VARIABLE not in environment:
        return 0
    chosen = [pid for name, pid in pids.items() if name not in _NOT_OURS]
    for pid in chosen:
        os.kill(pid, signal.SIGUSR2)
    return len(chosen)


def read(environment: Mapping[str, str], processes: int, tasks: int) -> dict[str, Any]:
    """Returns what each process spent its time on, by function, in microseconds a task, most expensive first."""
    where = Path(environment[FOLDER_VARIABLE])
    deadline = time.monotonic() + WRITTEN_SECONDS
    while time.monotonic() < deadline and len(list(where.glob("*.folded"))) < processes:
        time.sleep(0.1)
    files = sorted(where.glob("*.folded"))
    return {file.stem.rpartition("-")[0]: digest(file.read_text(), tasks) for file in files}


def digest(folded: str, tasks: int) -> dict[str, Any]:
    """Sums folded stacks up: by function itself, by function with what it called, and by package. Pure.

    A library's function is named with the function of ours that led to it, because that is what can be changed; of
    functions with all they call, what nearly every stack runs through says nothing and is left out.
    """
    itself: Counter[str] = Counter()
    within: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for line in folded.splitlines():
        text, _, count = line.rpartition(" ")
        frames = text.split(";")
        itself[_named(frames)] += int(count)
        packages[_package(frames)] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    total = itself.total()
    telling = Counter({name: count for name, count in within.items() if count < EVERYWHERE * total})

    def shown(counts: Counter[str]) -> dict[str, float]:
        return {name: round(count * SAMPLE_SECONDS * 1e6 / tasks, 1) for name, count in counts.most_common(SHOWN)}

    return {
        "us_per_task": round(total * SAMPLE_SECONDS * 1e6 / tasks, 1),
        "itself": shown(itself),
        "within": shown(telling),
        "packages": shown(packages),
    }


def _named(frames: list[str]) -> str:
    """Returns the innermost function, with the innermost of ours where it is a library's."""
    leaf = frames[-1]
    if leaf.startswith(_OURS):
        return leaf
    ours = next((frame for frame in reversed(frames) if frame.startswith(_OURS)), "")
    # The program's own entry is above everything and no one's reason.
    return leaf if not ours or ours.startswith("collegium_cli") else f"{leaf} < {ours}"


def _package(frames: list[str]) -> str:
    """Returns the service a stack belongs to: its outermost frame in one of ours that is not a shared library's."""
    libraries = ("collegium_bus", "collegium_runtime", "collegium_cli", "collegium_telemetry", "collegium_store")
    ours = [frame.partition(".")[0] for frame in frames if frame.startswith(_OURS)]
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
