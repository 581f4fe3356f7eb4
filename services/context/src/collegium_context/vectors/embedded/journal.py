"""A journal: records in a file, each whole or not there.

A record is a length, a checksum and its bytes, appended by one write: what a killed process left unfinished is the
file's end, and is cut off when it is opened again. One rule: a record that was appended before a kill is read after
it; with ``sync`` also after a loss of power.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from collegium_context.vectors.interface import VectorStoreError

_FRAME = struct.Struct("<II")
RECORD_BYTES_MAX = 64 * 1024 * 1024


class DamagedJournalError(VectorStoreError):
    """A record in the middle of a journal is not what was written: the disk, or another program, changed it."""

    code = "vector_store_damaged"


def records(path: Path, limit: int | None = None, *, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yields each record between two places of a journal, with the place where it ends; raises DamagedJournalError."""
    size = path.stat().st_size if limit is None else limit
    place = start
    with path.open("rb") as file:
        file.seek(start)
        while place + _FRAME.size <= size:
            length, checksum = _FRAME.unpack(file.read(_FRAME.size))
            end = place + _FRAME.size + length
            if end > size or length > RECORD_BYTES_MAX:
                return
            body = file.read(length)
            if zlib.crc32(body) != checksum:
                if end == size:
                    return
                raise DamagedJournalError(f"{path} is damaged at byte {place}; restore a snapshot, or re-index")
            yield body, end
            place = end


class Journal:
    """A journal that is open for appending."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = os.fstat(self._descriptor).st_size
        self._synced = 0
        self._syncing: asyncio.Lock | None = None

    def cut(self, size: int) -> None:
        """Cuts off what stands behind ``size``: the record that a kill left unfinished."""
        if size < self.size:
            os.ftruncate(self._descriptor, size)
            self.size = size

    def append(self, body: bytes) -> None:
        """Appends a record; it outlives the end of this process."""
        framed = _FRAME.pack(len(body), zlib.crc32(body)) + body
        before = self.size
        try:
            written = os.write(self._descriptor, framed)
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise
        if written != len(framed):
            os.ftruncate(self._descriptor, before)
            raise OSError(f"{self.path}: only {written} of {len(framed)} bytes could be written")
        self.size += written

    async def sync(self) -> None:
        """Returns once everything appended so far outlives a loss of power; many callers share one write."""
        wanted = self.size
        if self._syncing is None:
            self._syncing = asyncio.Lock()
        async with self._syncing:
            if self._synced >= wanted:
                return
            covered = self.size
            await asyncio.to_thread(os.fdatasync, self._descriptor)
            self._synced = covered

    def close(self) -> None:
        """Closes the file; doing it twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
