import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from collegium_testing.http1 import MAX_BODY_BYTES, Http1Connection, Request, listen, stop_listening


@asynccontextmanager
async def served(
    seen: list[Request], connections: set[Http1Connection]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    def handle(connection: Http1Connection, request: Request) -> None:
        seen.append(request)
        if request.path == "/later":
            asyncio.get_running_loop().call_soon(connection.reply, 200, b"later")
        else:
            connection.reply(200, request.path.encode())

    server, port = await listen(handle, "127.0.0.1", 0, connections)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await stop_listening(server, connections)


async def read_body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.split(b":")[1]))


async def test_a_request_in_single_bytes_is_one_request() -> None:
    seen: list[Request] = []
    async with served(seen, set()) as (reader, writer):
        for byte in b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Y: z\r\nContent-Length: 5\r\n\r\nhello":
            writer.write(bytes([byte]))
            await writer.drain()
        assert await read_body(reader) == b"/a"
    (request,) = seen
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a", "b=c", b"hello")
    assert request.headers[b"x-y"] == b"z"


async def test_pipelined_requests_are_answered_in_order() -> None:
    count = 3000
    async with served([], set()) as (reader, writer):
        writer.write(b"GET /later HTTP/1.1\r\n\r\n")
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(count)))
        assert await read_body(reader) == b"later"
        for number in range(count):
            assert await read_body(reader) == b"/%d" % number


async def test_connection_close_is_honoured() -> None:
    async with served([], set()) as (reader, writer):
        writer.write(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n")
        reply = await reader.read()
    assert b"connection: close\r\n" in reply
    assert reply.endswith(b"/a")


async def test_expect_continue_is_answered() -> None:
    async with served([], set()) as (reader, writer):
        writer.write(b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert await read_body(reader) == b"/a"


@pytest.mark.parametrize(
    "sent", [b"not http at all\r\n\r\n", b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nx"]
)
async def test_what_is_not_http_gets_400_and_is_closed(sent: bytes) -> None:
    async with served([], set()) as (reader, writer):
        writer.write(sent)
        assert b"HTTP/1.1 " in await reader.read()


async def test_a_body_over_the_limit_gets_413() -> None:
    async with served([], set()) as (reader, writer):
        writer.write(b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
        writer.write(bytes(MAX_BODY_BYTES + 1))
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
