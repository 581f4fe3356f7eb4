"""Reading and cutting a document in a process of its own, which may not use more time or memory than a document gets.

``read`` is the parent's side; the module run as a program is the child's: a document on standard input, its chunks on
standard output. One rule: whatever a document does to the child, the parent gets a typed error in time.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from asyncio.subprocess import DEVNULL

import msgspec
from collegium_children.child import start

from collegium_context.documents.chunking import Cut, chunked
from collegium_context.documents.errors import BY_CODE, DocumentError, DocumentTooCostlyError
from collegium_context.documents.extracting import Kind, extracted

SECONDS_MAX = 60.0
MEMORY_BYTES_MAX = 1024 * 1024 * 1024


class _Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    code: str
    message: str


class _Read(msgspec.Struct, frozen=True, tag="read"):
    document: Cut


_decode = msgspec.msgpack.Decoder(_Read | _Refusal).decode


def cut(content: bytes, kind: Kind) -> Cut:
    """Reads a document and cuts it, in this process; raises :class:`DocumentError`."""
    found = extracted(content, kind)
    return Cut(chunked(found.blocks), found.title)


async def read(content: bytes, kind: Kind, *, seconds: float = SECONDS_MAX) -> Cut:
    """Reads a document and cuts it in a child process; raises :class:`DocumentError`."""
    child = await start(__name__, kind, str(int(seconds)), words=DEVNULL)
    try:
        async with asyncio.timeout(seconds):
            said, _ = await child.converse(content)
    except TimeoutError:
        raise DocumentTooCostlyError(f"it takes longer than {seconds:.0f} seconds to read") from None
    finally:
        await child.end()
    try:
        answer = _decode(said)
    except (msgspec.DecodeError, ValueError):
        raise DocumentTooCostlyError("reading it took more time or memory than a document gets") from None
    if isinstance(answer, _Refusal):
        raise BY_CODE.get(answer.code, DocumentError)(answer.message)
    return answer.document


def _main(kind: Kind, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    try:
        answer: _Read | _Refusal = _Read(cut(sys.stdin.buffer.read(), kind))
    except DocumentError as error:
        answer = _Refusal(error.code, str(error))
    except MemoryError:
        answer = _Refusal(DocumentTooCostlyError.code, "reading it takes more memory than a document gets")
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))  # pyright: ignore[reportArgumentType] - the parent names a kind
