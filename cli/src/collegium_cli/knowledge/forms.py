"""A form with one file, as browsers send it, read from disk while it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

PIECE_BYTES = 65_536


class Form:
    """The form: ``fields`` are names and texts in order, then comes the file."""

    def __init__(self, file: Path, fields: Sequence[tuple[str, str]]) -> None:
        self._file = file
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields
        ]
        named = f'Content-Disposition: form-data; name="file"; filename="{quote(file.name)}"\r\n\r\n'
        self._head = "".join([*parts, f"--{boundary}\r\n{named}"]).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file_bytes = file.stat().st_size
        self.size = len(self._head) + self._file_bytes + len(self._tail)

    def pieces(self) -> Iterator[bytes]:
        """Yields the form, as long as it was when it was made."""
        yield self._head
        left = self._file_bytes
        with self._file.open("rb") as file:
            while left and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                yield piece
        yield self._tail
