"""Where tests write: into memory, where the machine has room for it.

Servers of tests make and drop thousands of small files; on a disk that is a third of what the suite costs. A process
that is killed loses nothing there that a disk would keep; only a machine that loses its power does, and no test takes
that away. One rule: who names a folder (``--basetemp``) gets that one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of this process's own is made in it
ROOM_BYTES: Final = 8 << 30
_PREFIX: Final = "collegium-tests-"


def make_in_memory(memory: Path = MEMORY, *, meminfo: Path = Path("/proc/meminfo")) -> Path | None:
    """Returns a new folder of this process in memory, or None where ``ROOM_BYTES`` are not free.

    Removes those of processes that have ended without.
    """
    if not os.access(memory, os.W_OK | os.X_OK):
        return None
    for left in memory.glob(f"{_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(_PREFIX)).exists():
            shutil.rmtree(left, ignore_errors=True)
    if min(shutil.disk_usage(memory).free, _available_bytes(meminfo)) < ROOM_BYTES:
        return None
    folder = memory / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder


def _available_bytes(meminfo: Path) -> int:
    """What programs may still take without swapping, 0 where the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
