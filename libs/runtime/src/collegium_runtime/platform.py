"""What a service is given, and what it gives back.

One rule: everything from outside (settings, broker, database address, time, telemetry) comes in through here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import msgspec
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.dead import DeadLetters
from collegium_bus.direct import DirectReader
from collegium_bus.publisher import Publisher
from collegium_contracts.envelope import Keyring
from collegium_contracts.journey import Service
from collegium_settings import Settings
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing

from collegium_runtime.datakeys import DataKeys
from collegium_runtime.runtime_file import EmbeddedModel

CLOCK_OFFSET_VARIABLE: Final = "COLLEGIUM_CLOCK_OFFSET_SECONDS"


def unix_ms() -> int:
    """Returns the time as Unix milliseconds."""
    return time.time_ns() // 1_000_000


def clock_from(environ: Mapping[str, str]) -> Callable[[], int]:
    """Returns the process's clock; tests put it off by ``COLLEGIUM_CLOCK_OFFSET_SECONDS`` (a whole number).

    A ValueError names an offset that is no number.
    """
    text = environ.get(CLOCK_OFFSET_VARIABLE)
    if not text:
        return unix_ms
    offset_ms = int(text) * 1000
    return lambda: unix_ms() + offset_ms


class Platform(msgspec.Struct, kw_only=True):
    """Everything a service needs from outside.

    ``instance`` names this replica, and stays the same over restarts where a supervisor says so. ``now_ms`` is the
    service's clock (Unix milliseconds). ``settings`` is replaced as a whole when the configuration changes; a service
    that keeps something made of it adds a callback to ``on_settings``, which gets settings that were validated.
    ``data_keys`` are those of a service that reads content; ``keyring`` seals with them.
    """

    service: Service
    instance: str
    settings: Settings
    data_dir: Path
    database_url: str
    embedded_model: EmbeddedModel | None
    connection: Connection
    publisher: Publisher
    direct: DirectReader
    claims: ClaimStore
    dead_letters: DeadLetters
    tracing: Tracing
    metrics: Metrics
    keyring: Keyring
    data_keys: DataKeys | None = None
    now_ms: Callable[[], int] = unix_ms
    on_settings: list[Callable[[Settings], Awaitable[None]]] = []


class App(Protocol):
    """A service: ``start`` returns when it is ready to work, ``stop`` drains it."""

    async def start(self) -> None:
        """Starts; raises where a dependency refuses."""
        ...

    async def stop(self) -> None:
        """Drains: takes nothing new, finishes or hands back what it holds."""
        ...

    def readiness(self) -> dict[str, bool]:
        """Names what must be true for the service to do its work."""
        ...


@runtime_checkable
class Door(Protocol):
    """A service that clients reach; it may have taken free ports, so it says where it listens."""

    def addresses(self) -> dict[str, str]:
        """Names each door's address, as clients write it."""
        ...


Build = Callable[[Platform], App]
