"""One HTTP GET over loopback, for readiness probes before any HTTP client has been imported.

Not here: anything that talks to a server which is not our own child.
One rule: HTTP/1.0, one answer, read to its end.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

ANSWER_MAX_BYTES = 4 * 1024 * 1024


async def get(url: str) -> tuple[int, bytes]:
    """Returns status and body; raises OSError where nobody listens or the answer is not HTTP."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        answer = await _read(reader)
    finally:
        writer.close()
        await writer.wait_closed()
    head, separator, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)
    if not separator or len(status) < 2 or not status[1].isdigit():
        raise ConnectionError(f"no HTTP answer from {parts.netloc}")
    return int(status[1]), body


async def _read(reader: asyncio.StreamReader) -> bytes:
    chunks = bytearray()
    while len(chunks) < ANSWER_MAX_BYTES and (chunk := await reader.read(65536)):
        chunks += chunk
    return bytes(chunks)
