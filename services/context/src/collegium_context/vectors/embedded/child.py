"""Keeping an owner of the embedded store alive, as a child process of context.

Where another replica's child owns the folder, ours ends at once and is tried again until the folder is free: so one of
them owns it, and when it ends another takes over. One rule: whatever ends the child, context goes on and starts it
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process

import msgspec
import structlog

from collegium_context.vectors.embedded.owner import EXIT_LOCKED, Orders

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 0.2
AGAIN_SECONDS_MAX = 5.0
LOCKED_AGAIN_SECONDS = 1.0
STOP_SECONDS = 5.0


class Child:
    """Starts the owner and starts it again."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self.owns = False
        self.settled = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Returns once the child owns the folder, or another replica's does."""
        self._task = asyncio.create_task(self._keep(), name="vector-store-child")
        await self.settled.wait()

    async def stop(self) -> None:
        """Ends the child."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _keep(self) -> None:
        pause_seconds = AGAIN_SECONDS
        while True:
            code = await self._once()
            self.owns = False
            self.settled.set()
            if code == EXIT_LOCKED:
                await asyncio.sleep(LOCKED_AGAIN_SECONDS)
                continue
            log.warning("the process of the vector store ended, starting it again", code=code)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, AGAIN_SECONDS_MAX)

    async def _once(self) -> int:
        arguments = [sys.executable, "-m", "collegium_context.vectors.embedded.owner"]
        self._process = process = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(self._orders) + b"\n")
            await process.stdin.drain()
        while line := await process.stdout.readline():
            if line == b"ready\n":
                self.owns = True
                self.settled.set()
        return await process.wait()


def parent() -> int:
    """The process that the child ends with."""
    return os.getpid()
