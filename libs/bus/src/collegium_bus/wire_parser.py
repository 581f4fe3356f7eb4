"""A quick way through nats-py's protocol parser for what nearly all bytes are: whole messages.

nats-py tries regular expressions on every line and awaits a coroutine for every message. :class:`WireParser` walks over
a read with plain searches, at half the price; whatever is not a whole message (control lines, a message larger
than a read) it leaves to nats-py. One rule: what is handed on, and in which order, is what nats-py's own parser would
have handed on; a test holds the two together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

# What is left of a read is put before the next one, up to here: a longer message is collected by nats-py.
MAX_REST_BYTES = 64 * 1024
_END_OF_LINE_BYTES = len(b"\r\n")


class WireParser(Parser):
    """Parses what the broker sends and hands each message to ``nc.process_raw``, or where that declines to nats-py."""

    def __init__(self, nc: Any) -> None:
        super().__init__(nc)
        self._client = nc

    async def parse(self, data: bytes = b"") -> None:
        """Takes the bytes of one read."""
        if self.buf:
            if self.state != AWAITING_CONTROL_LINE or len(self.buf) > MAX_REST_BYTES:
                await super().parse(data)
                return
            data = bytes(self.buf) + data
            self.buf.clear()
        elif self.state != AWAITING_CONTROL_LINE:
            await super().parse(data)
            return
        position = await self._messages(data)
        if position == len(data):
            return
        self.buf.extend(memoryview(data)[position:])
        if not data.startswith((b"MSG ", b"HMSG "), position):
            await super().parse()

    def take(self, data: bytes) -> int:
        """Hands on the whole messages of raw subscriptions at the beginning of a read; returns where the rest begins.

        For whoever has a read before its reader is woken; nothing is taken while a message is being put together.
        """
        if self.buf or self.state != AWAITING_CONTROL_LINE:
            return 0
        position = 0
        process = self._client.process_raw
        try:
            while (found := _whole(data, position)) is not None and process(*found.message):
                position = found.end
        except ProtocolError:
            # The reader finds it too, and ends the connection for it.
            return position
        return position

    async def _messages(self, data: bytes) -> int:
        """Hands on the whole messages at the beginning of ``data`` and returns where the rest begins."""
        position = 0
        process = self._client.process_raw
        while (found := _whole(data, position)) is not None:
            if not process(*found.message):
                await self._client._process_msg(*found.message)
            position = found.end
        return position


class _Found(NamedTuple):
    """One message as it is handed on (subscription, subject, reply, payload, header block), and where it ends."""

    message: tuple[int, bytes, bytes, bytes, bytes | None]
    end: int


def _whole(data: bytes, position: int) -> _Found | None:
    """Returns the message that begins at ``position``; none where it is no message, or not all of it."""
    if data.startswith(b"HMSG ", position):
        head, fields_without_reply = position + 5, 4
    elif data.startswith(b"MSG ", position):
        head, fields_without_reply = position + 4, 3
    else:
        return None
    line_end = data.find(b"\r\n", head)
    if line_end < 0:
        return None
    fields = data[head:line_end].split()
    reply = fields[2] if len(fields) > fields_without_reply else b""
    body = line_end + _END_OF_LINE_BYTES
    try:
        sid, end = int(fields[1]), body + int(fields[-1])
        payload = body + int(fields[-2]) if fields_without_reply == 4 else body
    except (ValueError, IndexError):
        raise ProtocolError("nats: malformed MSG") from None
    if len(data) < end + _END_OF_LINE_BYTES:
        return None
    block = data[body:payload] if payload > body else None
    return _Found((sid, fields[0], reply, data[payload:end], block), end + _END_OF_LINE_BYTES)
