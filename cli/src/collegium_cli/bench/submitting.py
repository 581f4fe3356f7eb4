"""Running the submission tool as processes of its own, so that the figures hold its cost apart.

One rule: a submitter's report and the ids it was given come from files and its output; nothing is guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec

from collegium_cli.bench.stage import Stage


class Submission(msgspec.Struct, kw_only=True):
    """A running submitter; ``report`` and ``ids`` are set by :meth:`result`."""

    process: asyncio.subprocess.Process
    ids_file: Path

    async def result(self) -> tuple[dict[str, Any], set[str]]:
        """Waits for its end and returns its report and the ids of what was accepted; RuntimeError where it failed."""
        output, _ = await self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError("the submitter failed; its messages are above")
        return msgspec.json.decode(output), set(self.ids_file.read_text().split())


@contextlib.asynccontextmanager
async def submitting(stage: Stage, tenant: str, *, via: str = "http", **plan: object) -> AsyncGenerator[Submission]:
    """Starts a submitter for one tenant; ``plan`` are the tool's options by name. Ended with the block."""
    module = "collegium_testing.submit" if via == "http" else "collegium_testing.submit_grpc"
    ids_file = stage.folder / f"{tenant}.{os.urandom(3).hex()}.ids"
    arguments = ["--url", stage.http if via == "http" else stage.grpc, "--key", stage.keys[tenant]]
    arguments += ["--ids", str(ids_file)]
    for name, value in plan.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Submission(process=process, ids_file=ids_file)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
