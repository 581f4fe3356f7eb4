"""Keeping an owner of the embedded store alive, as a child process of context.

Where another replica's child owns the folder, ours ends at once and is tried again until the folder is free: so one of
them owns it, and when it ends another takes over. One rule: whatever ends the child, context goes on and starts it
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
from collegium_children.child import Child as Process
from collegium_children.child import start

from collegium_context.vectors.embedded.owner import EXIT_LOCKED, Orders, is_locked

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 0.2
AGAIN_SECONDS_MAX = 5.0
LOCKED_AGAIN_SECONDS = 1.0
STOP_SECONDS = 5.0
START_SECONDS = 30.0
STEADY_SECONDS = 30.0


class Child:
    """Starts the owner and starts it again."""

    def __init__(self, orders: Orders, others_answer: Callable[[], Awaitable[bool]]) -> None:
        self._orders = orders
        self._others_answer = others_answer
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self.is_ready = False
        self._settled = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Returns once the store answers, from here or from another replica; or does not in time."""
        self._task = asyncio.create_task(self._keep(), name="vector-store-child")
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._settled.wait()
        except TimeoutError:
            log.error("the vector store does not answer yet, going on without", seconds=START_SECONDS)

    async def stop(self) -> None:
        """Ends the child."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await process.close(STOP_SECONDS)

    async def _keep(self) -> None:
        pause_seconds = AGAIN_SECONDS
        while True:
            if is_locked(Path(self._orders.folder)):
                self._tell(is_ready=await self._others_answer())
                if not self.is_ready:
                    text = "another process owns it and does not answer; stop it, or use another data folder"
                    log.error("the vector store's folder is in use", folder=self._orders.folder, reason=text)
                await asyncio.sleep(LOCKED_AGAIN_SECONDS)
                continue
            self._tell(is_ready=False)  # whoever answered before has ended
            began = time.monotonic()
            code = await self._once()
            self._tell(is_ready=False)
            if code == EXIT_LOCKED:
                continue
            log.warning("the process of the vector store ended, starting it again", code=code)
            if time.monotonic() - began > STEADY_SECONDS:
                pause_seconds = AGAIN_SECONDS
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, AGAIN_SECONDS_MAX)

    def _tell(self, *, is_ready: bool) -> None:
        self.is_ready = is_ready
        if is_ready:
            self._settled.set()

    async def _once(self) -> int:
        self._process = process = await start("collegium_context.vectors.embedded.owner")
        with contextlib.suppress(ConnectionError):
            await process.put(msgspec.json.encode(self._orders))
        while line := await process.line():
            if line == b"ready\n":
                self._tell(is_ready=True)
        return await process.wait()


def parent() -> int:
    """The process that the child ends with."""
    return os.getpid()
