"""A connected bus on a broker that holds the journey's declarations and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest_asyncio
from collegium_bus import topology
from collegium_bus.connection import Connection, connect
from collegium_bus.dead import DeadLetters
from collegium_bus.direct import DirectReader
from collegium_bus.publisher import Publisher


class Bus(NamedTuple):
    """One service's way to the broker."""

    url: str
    connection: Connection
    publisher: Publisher
    direct: DirectReader
    dead_letters: DeadLetters


async def open_bus(url: str, service: str = "worker-pool") -> Bus:
    connection = await connect(url, service)
    publisher = Publisher(connection)
    return Bus(url, connection, publisher, DirectReader(connection), DeadLetters(publisher, service))


async def declare(bus: Bus) -> None:
    await topology.apply(bus.connection, await topology.plan(bus.connection, pools=["general"]))


@pytest_asyncio.fixture
async def bus(clean_nats_url: str) -> AsyncIterator[Bus]:
    opened = await open_bus(clean_nats_url)
    await declare(opened)
    yield opened
    await opened.connection.close()
