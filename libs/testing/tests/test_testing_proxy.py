"""The proxy changes when bytes come, never which."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from collegium_testing import eventually
from collegium_testing.faults.proxy import Direction, TcpProxy

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back what it gets and counts its bytes."""

    def __init__(self) -> None:
        self.received = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()
    await server.wait_closed()


@pytest_asyncio.fixture
async def proxy(echo: Echo) -> AsyncIterator[TcpProxy]:
    async with TcpProxy("127.0.0.1", echo.port, seed=3) as proxy:
        yield proxy


async def connected(proxy: TcpProxy) -> Ends:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(ends: Ends, data: bytes) -> float:
    began = time.monotonic()
    ends[1].write(data)
    async with asyncio.timeout(30):
        assert await ends[0].readexactly(len(data)) == data
    return time.monotonic() - began


async def test_bytes_pass_whole_and_in_order_whatever_is_done_to_them(proxy: TcpProxy):
    for way in (proxy.up, proxy.down):
        way.jitter_ms, way.loss, way.stall_ms = 3, 0.2, 20
    ends = await connected(proxy)
    await echoed(ends, random.Random(1).randbytes(600_000))
    ends[1].close()


async def test_latency_is_paid_in_its_direction(proxy: TcpProxy):
    ends = await connected(proxy)
    assert await echoed(ends, b"x") < 0.1
    proxy.up.latency_ms = 150
    assert await echoed(ends, b"x") >= 0.15
    proxy.heal()
    assert await echoed(ends, b"x") < 0.1
    ends[1].close()


async def test_a_held_direction_delivers_all_of_it_later(proxy: TcpProxy, echo: Echo):
    ends = await connected(proxy)
    await echoed(ends, b"before")
    proxy.down.held = True
    ends[1].write(b"during")
    await eventually(lambda: echo.received == 12)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await ends[0].read(1)
    proxy.down.held = False
    async with asyncio.timeout(30):
        assert await ends[0].readexactly(6) == b"during"
    ends[1].close()


async def test_a_held_way_up_keeps_the_server_from_hearing(proxy: TcpProxy, echo: Echo):
    ends = await connected(proxy)
    proxy.up.held = True
    ends[1].write(b"unheard")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await ends[0].read(1)
    assert echo.received == 0
    proxy.heal()
    await eventually(lambda: echo.received == 7)
    ends[1].close()


async def test_a_cut_ends_connections_and_refuses_new_ones_until_mended(proxy: TcpProxy):
    ends = await connected(proxy)
    await echoed(ends, b"x")
    proxy.cut()
    assert await _ended(ends)
    again = await connected(proxy)
    assert await _ended(again)
    proxy.mend()
    whole = await connected(proxy)
    await echoed(whole, b"x")
    for one in (ends, again, whole):
        one[1].close()


async def test_a_reset_takes_new_connections_at_once(proxy: TcpProxy):
    ends = await connected(proxy)
    await echoed(ends, b"x")
    proxy.reset_all()
    with pytest.raises(ConnectionResetError):
        await ends[0].read(1)
    again = await connected(proxy)
    await echoed(again, b"x")
    again[1].close()


def test_the_same_seed_spoils_the_same_chunks():
    way = Direction()
    way.jitter_ms, way.loss = 5, 0.5
    first, second = ([way.delay_seconds(chance) for _ in range(20)] for chance in map(random.Random, (7, 7)))
    assert first == second


async def _ended(ends: Ends) -> bool:
    async with asyncio.timeout(30):
        try:
            return await ends[0].read(1) == b""
        except ConnectionResetError:
            return True
