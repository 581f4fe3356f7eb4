"""Posting to addresses that tenants chose: one HTTP client that connects to public addresses only.

Names are resolved here and every address is checked, and the socket is made only for an address that passes, so that
neither a name that changes its mind nor an address written out gets past. No redirect is followed, no proxy or
credential of the environment is used, and of an answer no more than its head and a few kilobytes are read. One rule:
nothing that a receiver says is kept but its status and how long it wants to be left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from collegium_gateway.callbacks import is_refused

TIMEOUT_SECONDS = 15.0
# Read so that the connection can be used again; a longer answer costs its connection.
MAX_ANSWER_BYTES = 4096
ANSWER_SECONDS = 1.0
# Threads of its own: a name server that never answers must not hold those that others need.
RESOLVER_THREADS = 32
_RETRY_AFTER_DIGITS = 6


class AddressRefusedError(OSError):
    """Every address behind a callback is one that may not be called."""


class DeliveryError(Exception):
    """A request that got no answer; ``code`` says why: address_refused, timeout, unreachable, tls or bad_answer."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Answer(msgspec.Struct, frozen=True):
    """A receiver's answer."""

    status: int
    retry_after_seconds: int = 0


class GuardedResolver(AbstractResolver):
    """Resolves names to the addresses that pass; raises AddressRefusedError where none does."""

    def __init__(self, passes: Callable[[str], bool]) -> None:
        self._passes = passes
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "webhook-names")

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


class WebhookClient:
    """The client; ``open`` and ``close`` bracket its life."""

    def __init__(self, *, allow_private: bool, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Opens the pool of connections."""
        # How many there may be at a time is the sender's to say.
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=15, resolver=GuardedResolver(self._passes), socket_factory=self._socket
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "collegium-webhooks", "accept-encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()

    async def use(self, *, allow_private: bool) -> None:
        """Follows a change of the configuration; what is connected is connected anew."""
        if allow_private == self._allow_private:
            return
        self._allow_private = allow_private
        earlier = self._session
        if earlier is not None:
            await self.open()
            await earlier.close()

    def _passes(self, address: str) -> bool:
        return self._allow_private or not is_refused(address)

    def _socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Makes the socket of one connection; the last gate, which addresses written out in URLs pass too."""
        family, kind, proto, _, address = address_info
        if not self._passes(address[0]):
            raise AddressRefusedError("this address is not public")
        return socket.socket(family, kind, proto)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Posts one message; raises DeliveryError where no answer came."""
        assert self._session is not None, "open() comes first"
        try:
            async with self._session.post(URL(url), data=body, headers=headers, allow_redirects=False) as response:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await response.content.read(MAX_ANSWER_BYTES)
                return Answer(response.status, _retry_after(response.headers.get("retry-after", "")))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise DeliveryError(_code_of(error)) from error


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


def _code_of(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefusedError):
            return "address_refused"
        cause = cause.__cause__ or cause.__context__
    match error:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientSSLError():
            return "tls"
        case aiohttp.ClientResponseError():
            return "bad_answer"
        case _:
            return "unreachable"


def _retry_after(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _RETRY_AFTER_DIGITS else 0
