"""Which process is which: identities that survive the reuse of a pid, read from /proc.

Here lives reading a process's start time, arguments and folder, and waiting for the end of any process, a child
or not. Not here: deciding whom to signal.
One rule: a pid alone proves nothing; boot, start time and arguments together do.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE_FIELD = 0  # counted after the command's closing parenthesis, as the command may hold spaces
_START_FIELD = 19


@dataclass(frozen=True, slots=True)
class Identity:
    """One process: ``start_ticks`` since the boot ``boot_id``; ``mark`` is an argument that only it was given."""

    pid: int
    start_ticks: int
    boot_id: str
    mark: str

    def alive(self) -> bool:
        """Tells whether exactly this process still runs."""
        if self.boot_id != boot_id() or self.start_ticks != start_ticks(self.pid):
            return False
        try:
            arguments = (_PROC / str(self.pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self.mark) in arguments

    def send(self, number: signal.Signals) -> bool:
        """Signals exactly this process; False where it has ended. No reuse of its pid can come between."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def save(self, path: Path) -> None:
        """Writes the identity so that a reader sees all of it or none."""
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)


def load(path: Path) -> Identity | None:
    """Reads a saved identity; None where there is none that can be read."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def boot_id() -> str:
    """Returns the id of this boot of the machine: pids and start times mean nothing across boots."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None where it does not run (a zombie does not)."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[_STATE_FIELD] in "ZX" else int(fields[_START_FIELD])


def working_in(folder: Path) -> list[int]:
    """Returns the pids of the processes whose working folder is ``folder`` (PostgreSQL's all work in their data)."""
    wanted = str(folder.resolve())
    found: list[int] = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if str((entry / "cwd").readlink()) == wanted and start_ticks(int(entry.name)) is not None:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def gone(pid: int, timeout_seconds: float | None) -> bool:
    """Waits until a process has ended, a child or not; False where it still runs after the timeout."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(timeout_seconds):
            await ended.wait()
    except TimeoutError:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True
