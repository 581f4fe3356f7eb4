"""Connecting to addresses that somebody named: names are resolved here, and no socket is made to what does not pass.

Neither a name that changes its mind nor an address written out gets past. One rule: what is checked is the address that
the socket is made to, whatever the URL said.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

# Threads of its own: a name server that never answers must not hold those that others need.
RESOLVER_THREADS: Final = 32


class AddressRefusedError(OSError):
    """Every address behind a name is one that may not be called."""


class GuardedResolver(AbstractResolver):
    """Resolves names to the addresses that pass; raises AddressRefusedError where none does."""

    def __init__(self, passes: Callable[[str], bool]) -> None:
        self._passes = passes
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "guarded-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolves one name."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        allowed = [one for one in found if self._passes(one["host"])]
        if found and not allowed:
            raise AddressRefusedError("no address of this name is public")
        return allowed

    async def close(self) -> None:
        """Ends the threads; those that still wait for a name server end when it answers."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def guarded_socket(passes: Callable[[str], bool], address_info: tuple[Any, ...]) -> socket.socket:
    """Makes the socket of one connection; the last gate, which addresses written out in URLs pass too.

    Raises AddressRefusedError.
    """
    family, kind, proto, _, address = address_info
    if not passes(address[0]):
        raise AddressRefusedError("this address is not public")
    return socket.socket(family, kind, proto)


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=kind,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, proto, _, address in found
    ]
