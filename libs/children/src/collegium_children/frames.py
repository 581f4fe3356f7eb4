"""Frames on pipes: four bytes of length, the lowest first, and so many bytes."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

LENGTH: Final = struct.Struct("<I")


def framed(body: bytes) -> bytes:
    """Returns a frame; a body has less than 4 GiB."""
    return LENGTH.pack(len(body)) + body


def bodies(source: BinaryIO) -> Iterator[bytes]:
    """Yields what comes in, until it ends; what is cut off at its end is left out."""
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        size = LENGTH.unpack(head)[0]
        body = source.read(size)
        if len(body) < size:
            return
        yield body


def put(sink: BinaryIO, body: bytes) -> None:
    """Writes a frame at once; a reader that is gone is no error."""
    with contextlib.suppress(BrokenPipeError):
        sink.write(framed(body))
        sink.flush()


def answers() -> BinaryIO:
    """Takes the standard output for frames: what libraries print from now on goes to the standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out
