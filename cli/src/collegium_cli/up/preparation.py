"""Declarations and migrations in a process of their own, so that the supervisor stays small.

It is started first, loads its libraries while the servers start, and connects when told that they stand. One rule: it
ends with the supervisor, whatever ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

LINES_SHOWN: Final = 5


class PreparationError(Exception):
    """Declarations or migrations failed; the text is what was said about it."""


class Preparation:
    """A started ``collegium migrate`` that waits for its word."""

    def __init__(self, process: asyncio.subprocess.Process, log_file: Path) -> None:
        self._process = process
        self._log_file = log_file

    @classmethod
    async def start(cls, data: Path, config: Path | None) -> Preparation:
        """Starts the process; it reads ``runtime.json`` only once :meth:`finish` lets it go on."""
        arguments = ["-m", "collegium_cli", "migrate", "--data", str(data), "--wait", "--parent", str(os.getpid())]
        if config is not None:
            arguments += ["--config", str(config)]
        log_file = data / "logs" / "migrate.log"
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal must reach the supervisor alone.
                start_new_session=True,
            )
        return cls(process, log_file)

    async def finish(self) -> None:
        """Lets it go on and waits for its end; raises PreparationError where it failed."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: its log says why
            self._process.stdin.write(b"\n")
            await self._process.stdin.drain()
            self._process.stdin.close()
        code = await self._process.wait()
        if code != 0:
            said = self._log_file.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
            raise PreparationError("\n".join(said) or f"migrations ended with code {code}; see {self._log_file}")

    async def stop(self) -> None:
        """Ends the process where it still runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
