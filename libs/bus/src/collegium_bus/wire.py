"""The nats-py client with a short way in and a short way out.

nats-py parses every message's headers, wraps it in an object, and hands it through a queue to a task; every publish
is a coroutine. On the hot path that costs more than the message does. :class:`WireClient` keeps nats-py's connection,
authentication and reconnection, and adds two things: subscriptions whose handler is called synchronously with the raw
bytes (wire_parser.py takes these out of a read, before the reading task is woken), and a synchronous send that is
written once per turn of the event loop. One rule: a handler of a raw subscription never blocks and never raises.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription

from collegium_bus.errors import InvalidSubjectError
from collegium_bus.wire_parser import WireParser

# The broker ends the connection over a longer line (4096 bytes), in which the reply and the sizes stand too.
SUBJECT_CHARS_MAX: Final = 900
# A character of a token: no white space, no control character, none that parts tokens or matches others.
_CHAR: Final = r"[^\s\x00-\x20\x7f-\x9f.*>\ud800-\udfff]"
_SHOWN_CHARS: Final = 80
_is_subject = re.compile(rf"(?:{_CHAR}+\.)*{_CHAR}+").fullmatch
_is_filter = re.compile(rf"(?:(?:{_CHAR}+|\*)\.)*(?:{_CHAR}+|[*>])").fullmatch

# subject, reply, payload, raw header block (none where the message has no headers)
RawHandler = Callable[[bytes, bytes, bytes, "bytes | None"], None]


class WireClient(Client):
    """nats-py's client plus raw subscriptions and synchronous sends. Relies on nats-py 2.16 (pinned)."""

    def __init__(self) -> None:
        super().__init__()
        self._raw_handlers: dict[int, RawHandler] = {}
        self._ps = self._parser = WireParser(self)
        self._write_scheduled = False

    def process_raw(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> bool:
        """Hands a message to its raw handler; false where the subscription has none. Called by the parser."""
        handler = self._raw_handlers.get(sid)
        if handler is None:
            return False
        handler(subject, reply, payload, headers)
        return True

    async def _read_loop(self) -> None:
        reader = getattr(self._transport, "_io_reader", None)
        if isinstance(reader, asyncio.StreamReader):
            self._take_from(reader)
        await super()._read_loop()

    def _take_from(self, reader: asyncio.StreamReader) -> None:
        """Takes raw messages out of a read while it is fed: a turn of the loop earlier than the task that reads."""
        feed, take = reader.feed_data, self._parser.take

        def fed(data: bytes) -> None:
            # The task waits for this read, so nothing that came earlier is still to be handed on.
            if reader._waiter is not None:  # pyright: ignore[reportAttributeAccessIssue]
                position = take(data)
                data = data[position:] if position else data
            if data:
                feed(data)

        reader.feed_data = fed  # pyright: ignore[reportAttributeAccessIssue]

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if not self.process_raw(sid, subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)

    def send(self, command: bytes) -> None:
        """Queues a protocol command; it is written at the end of this turn of the loop, or after a reconnect."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._write_scheduled:
            self._write_scheduled = True
            asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        self._write_scheduled = False
        if self._pending_data_size > 0 and self.is_connected and self._transport is not None:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(pending)

    async def flush(self, timeout: int = 10) -> None:
        """Waits until the broker has processed everything sent so far."""
        # nats-py writes its PING at once, ahead of the commands that wait for the end of this turn.
        self._write_pending()
        await super().flush(timeout)

    def subscribe_raw(self, subject: str, handler: RawHandler, queue: str = "") -> int:
        """Subscribes with a synchronous handler and returns the subscription's id; it survives reconnects.

        Raises InvalidSubjectError.
        """
        check_filter(subject)
        if queue:
            check_subject(queue)
        self._sid += 1
        sid = self._sid
        self._subs[sid] = Subscription(self, sid, subject, queue=queue)
        self._raw_handlers[sid] = handler
        self.send(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def unsubscribe_raw(self, sid: int) -> None:
        """Ends a raw subscription; messages already on their way are dropped."""
        if self._raw_handlers.pop(sid, None) is not None:
            self._subs.pop(sid, None)
            self.send(f"UNSUB {sid}\r\n".encode())


def check_subject(subject: str) -> None:
    """Raises InvalidSubjectError for what is no concrete subject; 0.3 µs.

    A space or a line break in one would be read by the broker as the rest of the command, or as another command.
    """
    if _is_subject(subject) is None or len(subject) > SUBJECT_CHARS_MAX:
        raise InvalidSubjectError(f"{_shown(subject)} is no subject, so nothing was sent to it")


def check_filter(subject: str) -> None:
    """Raises InvalidSubjectError for what is neither a subject nor a filter of subjects."""
    if _is_filter(subject) is None or len(subject) > SUBJECT_CHARS_MAX:
        raise InvalidSubjectError(f"{_shown(subject)} is no filter of subjects")


def _shown(subject: str) -> str:
    return repr(subject[:_SHOWN_CHARS]) + ("…" if len(subject) > _SHOWN_CHARS else "")


def encode_headers(headers: dict[str, str]) -> bytes:
    """Writes a NATS header block; line breaks in a value become spaces, so that no value can add a header."""
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    if any("\r" in line or "\n" in line for line in lines):
        lines = [line.replace("\r", " ").replace("\n", " ") for line in lines]
    return ("NATS/1.0\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()


def decode_headers(block: bytes | None) -> dict[str, str]:
    """Reads a NATS header block; the status line, if it carries a status, is under ``Status`` and ``Description``."""
    if not block:
        return {}
    first, *lines = block.decode(errors="replace").split("\r\n")
    headers: dict[str, str] = {}
    if status := first[len("NATS/1.0") :].strip():
        headers["Status"], _, headers["Description"] = status.partition(" ")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def header_of(block: bytes | None, name: bytes) -> str:
    """Returns one header's value without reading the others; empty where it is absent."""
    if not block:
        return ""
    start = block.find(b"\r\n" + name + b":")
    if start < 0:
        return ""
    start += len(name) + 3
    return block[start : block.index(b"\r\n", start)].decode(errors="replace").strip()


def publish_command(subject: str, reply: str, headers: bytes | None, payload: bytes) -> bytes:
    """Writes one PUB or HPUB command."""
    if headers is None:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject.encode(),
        reply.encode(),
        len(headers),
        len(headers) + len(payload),
        headers,
        payload,
    )
