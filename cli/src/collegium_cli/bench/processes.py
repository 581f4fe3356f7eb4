"""What processes cost, read from /proc: processor seconds and memory, each with its descendants.

One rule: a process that is gone costs nothing more; whoever compares two readings sees what was spent between them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Returns the processor seconds each process and its descendants have used so far, ended ones included."""
    table = _table()
    return {name: round(sum(_spent(one) for one in _tree(pid, table)), 2) for name, pid in pids.items()}


def memory_mb(pids: Mapping[str, int]) -> dict[str, float]:
    """Returns the proportional memory of each process and its descendants, in MB."""
    table = _table()
    return {name: round(sum(_pss_kb(one) for one in _tree(pid, table)) / 1024, 1) for name, pid in pids.items()}


def load_average() -> float:
    """Returns how many processes wanted a processor over the last minute."""
    return round(os.getloadavg()[0], 2)


def machine_busy_seconds() -> float:
    """Returns the processor seconds that the whole machine has been busy."""
    fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, soft = (int(field) for field in fields[:7])
    return (user + nice + system + irq + soft) / _TICKS_PER_SECOND


def by_process(pids: Mapping[str, int]) -> dict[str, int]:
    """Returns the processes of services: those that share one are joined to one name."""
    names: dict[int, list[str]] = defaultdict(list)
    for service, pid in pids.items():
        names[pid].append(service)
    return {"+".join(services): pid for pid, services in names.items()}


def _table() -> dict[int, list[int]]:
    """Returns the children of every process."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children[int(fields[1])].append(int(entry.name))
    return children


def _tree(pid: int, table: Mapping[int, list[int]]) -> list[int]:
    found = [pid]
    for one in found:
        found.extend(table.get(one, ()))
    return found


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/<pid>/stat from the state on; empty where the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _spent(pid: int) -> float:
    fields = _stat(pid)
    # utime, stime, and the same of children that ended and were waited for (proc_pid_stat(5), counted from the state).
    return sum(int(field) for field in fields[11:15]) / _TICKS_PER_SECOND if fields else 0.0


def _pss_kb(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
