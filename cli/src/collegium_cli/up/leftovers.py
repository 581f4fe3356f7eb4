"""Servers on a folder that nobody wrote down.

A supervisor may be killed after it started a server and before it saved which process that is. The next one would run a
second broker on the same store, or find the database's folder taken for ever. One rule: a process is ended only if the
folder's lock is held and it was given a path that is this folder's alone.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import structlog
from collegium_servers.identity import Identity, boot_id, gone, start_ticks
from collegium_servers.process import claim

log = structlog.get_logger(__name__)

GRACE_SECONDS: Final = 8.0
KILL_SECONDS: Final = 5.0
# SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
_SERVERS: Final = (
    ("nats", Path("nats/nats.conf"), signal.SIGTERM),
    ("postgres", Path("postgres/data"), signal.SIGINT),
)


async def end_unrecorded(data: Path) -> list[int]:
    """Ends servers that still run on a data folder, recorded or not; returns their pids.

    Raises FolderInUseError where another running process holds a server's lock.
    """
    ended: list[int] = []
    for name, path, stop_signal in _SERVERS:
        held = claim(data, name)
        try:
            for process in _given(str(data / path)):
                log.warning("ending a server that an earlier start left", process=name, pid=process.pid)
                for number, patience_seconds in ((stop_signal, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
                    if not process.send(number) or await gone(process.pid, patience_seconds):
                        break
                ended.append(process.pid)
        finally:
            held.release()
    return ended


def _given(mark: str) -> list[Identity]:
    """Returns the processes that were given exactly this argument."""
    wanted, boot = os.fsencode(mark), boot_id()
    found: list[Identity] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ticks = start_ticks(int(entry.name)) if wanted in arguments else None
        if ticks is not None:
            found.append(Identity(int(entry.name), ticks, boot, mark))
    return found
