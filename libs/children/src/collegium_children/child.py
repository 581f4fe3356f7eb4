"""A child process as its parent sees it: started with little, spoken with in frames, ended for sure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Final

from collegium_children.frames import LENGTH, framed

# What Python and its libraries need to start. Keys of the platform may stand in what is left out.
PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONHOME")
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FRAME_BYTES_MAX: Final = 256 * 1024 * 1024


def environment(threads: int | None = None) -> dict[str, str]:
    """Returns what a child gets of the environment; ``threads``: so many, at most, for what libraries calculate."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    limits = {} if threads is None else dict.fromkeys(THREADS, str(threads))
    return passed | limits | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class Child:
    """A process that :func:`start` has started; whoever has it ends it."""

    def __init__(self, process: Process, *, leads: bool) -> None:
        self._process = process
        self._leads = leads

    @property
    def pid(self) -> int:
        """Its id; another process may have it once this one has ended."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """What it ended with; none while it runs."""
        return self._process.returncode

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def put(self, body: bytes) -> None:
        """Sends a frame; raises OSError or RuntimeError where it has ended."""
        assert self._process.stdin is not None, "it was started with pipes"
        self._process.stdin.write(framed(body))
        await self._process.stdin.drain()

    async def take(self, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
        """Returns the next frame.

        Raises asyncio.IncompleteReadError where it has ended, and OSError where the frame is larger than ``bytes_max``.
        """
        assert self._process.stdout is not None, "it was started with pipes"
        size = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))[0]
        if size > bytes_max:
            raise OSError(f"{size} bytes are no answer")
        return await self._process.stdout.readexactly(size)

    async def line(self) -> bytes:
        """Returns the next line; empty where it has ended."""
        assert self._process.stdout is not None, "it was started with pipes"
        return await self._process.stdout.readline()

    async def converse(self, said: bytes) -> tuple[bytes, bytes]:
        """Says something, closes the child's input, and returns all that it says until it ends, and its last words."""
        out, words = await self._process.communicate(said)
        return out, words or b""

    async def wait(self) -> int:
        """Returns what it ends with."""
        return await self._process.wait()

    async def close(self, seconds: float) -> None:
        """Ends its input, and after so many seconds the process; doing it twice is no error."""
        if self.runs and self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        await self.end()

    async def end(self) -> None:
        """Ends it at once, with whatever it started where it leads a group; doing it twice is no error."""
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """Ends it at once and does not wait until it is gone."""
        if not self.runs:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._leads:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def terminate(self) -> None:
        """Asks it to end."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()


async def start(
    module: str, *arguments: str, threads: int | None = None, leads: bool = False, words: int | None = None
) -> Child:
    """Starts a module as a program.

    Args:
        threads: so many, at most, for what libraries calculate.
        leads: it leads a process group of its own, in no folder of the service's, and ends with all that it starts.
        words: where its standard error goes, as asyncio.subprocess says it; none: where the parent's own goes.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=PIPE,
        stdout=PIPE,
        stderr=words,
        env=environment(threads),
        cwd="/" if leads else None,
        start_new_session=leads,
    )
    return Child(process, leads=leads)
