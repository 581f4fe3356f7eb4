"""Following the configuration file: a change is validated as a whole, then every service takes it, or none does.

The file is looked at every second, its bytes compared, so that an editor that replaces it and a mounted volume that
swaps a link are both seen. One rule: what cannot be used is told once, and the last good configuration stays.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from collegium_settings import Settings, SettingsError
from collegium_settings.changes import refusals

from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0


class Reloading:
    """Looks at one file; ``load`` reads and validates it, raising SettingsError."""

    def __init__(self, file: Path, load: Callable[[], Settings], platforms: Sequence[Platform]) -> None:
        self._file = file
        self._load = load
        self._platforms = platforms
        self._seen = self._digest()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="configuration")

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            digest = self._digest()
            if digest and digest != self._seen:
                self._seen = digest
                await self.take()

    def _digest(self) -> bytes:
        try:
            return hashlib.sha256(self._file.read_bytes()).digest()
        except OSError:
            # Replaced at this very moment, or gone: what was read stays.
            return b""

    async def take(self) -> bool:
        """Reads the file and hands it to every service; false where it was refused."""
        try:
            changed = self._load()
        except SettingsError as error:
            self._refused(str(error))
            return False
        if needed := refusals(self._platforms[0].settings, changed):
            self._refused(f"{', '.join(needed)}: a restart is needed for this; nothing was changed")
            return False
        for platform in self._platforms:
            platform.settings = changed
            for callback in platform.on_settings:
                await callback(changed)
            platform.metrics.config_reloads["accepted"].inc()
        log.info("configuration changed", file=str(self._file))
        return True

    def _refused(self, reason: str) -> None:
        for platform in self._platforms:
            platform.metrics.config_reloads["refused"].inc()
        log.error("configuration refused, keeping the last good one", file=str(self._file), reason=reason)
