"""Where a service process spends its processor time, sampled from inside; off unless the environment names a folder.

SIGUSR2 begins, a second one ends and writes ``<services>-<pid>.folded`` to the folder: one line a stack, outermost
frame first, with its samples (the form flame-graph tools read). The kernel's timer of used processor time takes the
samples, so waiting counts for nothing, and what a C function used is the Python frame's that called it. One rule:
nothing is installed in a process that was not asked for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

FOLDER_VARIABLE: Final = "COLLEGIUM_PROFILE"
# Not a divisor of common timers' periods, so that nothing periodic hides between two samples.
SAMPLE_SECONDS: Final = 0.00397
MAX_DEPTH: Final = 60


class Sampler:
    """Counts stacks each time the process has used so much processor time."""

    def __init__(self, label: str, folder: Path) -> None:
        self._file = folder / f"{label}-{os.getpid()}.folded"
        self._stacks: Counter[tuple[CodeType, ...]] = Counter()
        self.running = False

    def toggle(self) -> None:
        """Begins, or ends and writes what was counted."""
        if self.running:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._write()
        else:
            self._stacks.clear()
            signal.signal(signal.SIGPROF, self._sample)
            signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
        self.running = not self.running

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        stack: list[CodeType] = []
        while frame is not None and len(stack) < MAX_DEPTH:
            stack.append(frame.f_code)
            frame = frame.f_back
        self._stacks[tuple(stack)] += 1

    def _write(self) -> None:
        lines = [
            f"{';'.join(_frame_name(code) for code in reversed(stack))} {count}\n"
            for stack, count in self._stacks.most_common()
        ]
        draft = self._file.with_suffix(".new")
        draft.write_text("".join(lines))
        draft.replace(self._file)


def _frame_name(code: CodeType) -> str:
    """Returns ``module:function`` of a frame, the module as the path behind the last folder of packages."""
    path = code.co_filename
    for mark in ("/site-packages/", "/src/", f"/python{sys.version_info.major}.{sys.version_info.minor}/"):
        _, found, rest = path.rpartition(mark)
        if found:
            path = rest
            break
    return f"{path.removesuffix('.py').replace('/', '.')}:{code.co_qualname}".replace(" ", "_").replace(";", "_")


def install(label: str) -> Sampler | None:
    """Lets SIGUSR2 toggle a sampler on the running loop where the environment names a folder; else none."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    sampler = Sampler(label, Path(folder))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, sampler.toggle)
    return sampler
