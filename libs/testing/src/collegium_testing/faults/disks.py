"""Small disks: a file system of a few megabytes, where this process may mount one.

One rule: without the right to mount, the caller is told before anything was changed, and chooses another way (stream
and store limits of the broker, which show as refusals instead of write errors).
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path


class NoSmallDiskError(Exception):
    """This process may not mount a file system here; the text is what the system said."""


@contextlib.contextmanager
def small_disk(folder: Path, *, size_bytes: int) -> Generator[Path]:
    """A file system in memory of that size at a folder, for the length of a block; raises NoSmallDiskError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "collegium-small", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise NoSmallDiskError(said.strip()) from error
    try:
        yield folder
    finally:
        # Lazily: a process that a test has just killed may hold a file for a moment longer.
        _run("umount", "--lazy", str(folder))


@contextlib.contextmanager
def filled(folder: Path, *, leave_bytes: int = 0) -> Generator[None]:
    """Fills the file system of a folder with one file, but for ``leave_bytes``, until the end of the block."""
    ballast = folder / "ballast"
    block = b"\0" * 65_536
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(block)
        if leave_bytes:
            with ballast.open("r+b") as file:
                file.truncate(max(0, ballast.stat().st_size - leave_bytes))
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - constants and a path of our own
