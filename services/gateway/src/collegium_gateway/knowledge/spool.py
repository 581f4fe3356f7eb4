"""What is uploaded, kept until it is whole: in memory while it is small, else in a file that nobody can read.

The file has no name, is encrypted with a key that never leaves memory, and is gone with its process. One rule: content
of a tenant lies on no disk in the clear.
"""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

MEMORY_BYTES: Final = 1024 * 1024


class Spool:
    """Bytes that are written once, and then read once."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None
        self._cipher = Cipher(AES256(os.urandom(32)), CTR(os.urandom(16)))
        self._encryptor = self._cipher.encryptor()
        self.size = 0

    def __enter__(self) -> Spool:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Lets go of everything."""
        self._parts.clear()
        if self._file is not None:
            self._file.close()

    @property
    def is_on_disk(self) -> bool:
        """Whether it was too large for memory."""
        return self._file is not None

    def write(self, data: bytes) -> None:
        """Adds bytes."""
        self.size += len(data)
        if self._file is None and self.size <= self._memory_bytes:
            self._parts.append(bytes(data))
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
            held = b"".join(self._parts)
            self._parts.clear()
            self._file.write(self._encryptor.update(held))
        self._file.write(self._encryptor.update(data))

    def read(self) -> bytes:
        """Returns everything."""
        if self._file is None:
            return b"".join(self._parts)
        self._file.seek(0)
        return self._cipher.decryptor().update(self._file.read())
