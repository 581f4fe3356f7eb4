"""The quick parser hands on what nats-py's own does, in the same order, however the bytes are cut."""

from __future__ import annotations

import pytest
from collegium_bus.wire_parser import MAX_REST_BYTES, WireParser
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

RAW_SID = 7


class Heard:
    """A client that writes down what its parser hands on; only one subscription has a raw handler."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def process_raw(self, sid: int, *message: object) -> bool:
        if sid == RAW_SID:
            self.calls.append((sid, *message))
        return sid == RAW_SID

    async def _process_msg(self, sid: int, *message: object) -> None:
        self.calls.append((sid, *message))

    async def _process_ping(self) -> None:
        self.calls.append(("ping",))

    async def _process_pong(self) -> None:
        self.calls.append(("pong",))

    async def _process_err(self, error: str) -> None:
        self.calls.append(("error", error))

    async def _process_info(self, info: object) -> None:
        self.calls.append(("info", info))


def message(sid: int, reply: bytes, header: bytes | None, payload: bytes) -> bytes:
    tokens = [b"task.settled.a.b", b"%d" % sid, *([reply] if reply else [])]
    if header is None:
        return b"MSG %b %d\r\n%b\r\n" % (b" ".join(tokens), len(payload), payload)
    block = b"NATS/1.0\r\n" + header + b"\r\n\r\n"
    line = b"HMSG %b %d %d\r\n" % (b" ".join(tokens), len(block), len(block) + len(payload))
    return line + block + payload + b"\r\n"


payloads = st.one_of(
    st.binary(max_size=60),
    # What looks like the protocol within a payload is payload.
    st.sampled_from([b"MSG a 1 5\r\nhello\r\n", b"\r\n", b"PING\r\n", b"HMSG "]),
    st.integers(MAX_REST_BYTES - 5, MAX_REST_BYTES + 200).map(lambda size: b"x" * size),
)
frames = st.one_of(
    st.builds(
        message,
        st.sampled_from([RAW_SID, 8, 123]),
        st.sampled_from([b"", b"$JS.ACK.EVENTS.billing.1.2.3.4.5"]),
        st.one_of(st.none(), st.sampled_from([b"A: b", b"Status: x\r\nB: c"])),
        payloads,
    ),
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'slow consumer'\r\n", b'INFO {"a":1}\r\n']),
)


async def heard(parser_type: type[Parser], reads: list[bytes]) -> list[tuple[object, ...]]:
    client = Heard()
    parser = parser_type(client)
    for read in reads:
        await parser.parse(read)
    return client.calls


@settings(deadline=None, max_examples=150)
@given(st.lists(frames, max_size=8), st.data())
async def test_whatever_the_cuts_the_same_is_handed_on(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reads = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert await heard(WireParser, reads) == await heard(Parser, [stream])


async def heard_directly(reads: list[bytes]) -> list[tuple[object, ...]]:
    """As a connection does it: what is taken out of a read at once, and the rest by the task that reads."""
    client = Heard()
    parser = WireParser(client)
    for read in reads:
        if rest := read[parser.take(read) :]:
            await parser.parse(rest)
    return client.calls


@settings(deadline=None, max_examples=150)
@given(st.lists(frames, max_size=8), st.data())
async def test_what_is_taken_out_of_a_read_early_comes_in_the_same_order(
    sent: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reads = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert await heard_directly(reads) == await heard(Parser, [stream])


async def test_a_stream_that_comes_byte_by_byte() -> None:
    stream = message(RAW_SID, b"r", b"A: b", b"hello") + b"PING\r\n" + message(8, b"", None, b"") + b"PONG\r\n"
    reads = [bytes([byte]) for byte in stream]
    assert await heard(WireParser, reads) == await heard(Parser, [stream])
    assert len(await heard(WireParser, reads)) == 4


async def test_a_malformed_size_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        await heard(WireParser, [b"MSG subject 1 five\r\nhello\r\n"])
    with pytest.raises(ProtocolError):
        await heard_directly([message(RAW_SID, b"", None, b"") + b"MSG subject 1 five\r\nhello\r\n"])
