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
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from collegium_contracts.addresses import is_refused
from collegium_runtime.guarded import AddressRefusedError, GuardedResolver, guarded_socket
from yarl import URL

TIMEOUT_SECONDS = 15.0
# Read so that the connection can be used again; a longer answer costs its connection.
MAX_ANSWER_BYTES = 4096
ANSWER_SECONDS = 1.0
_RETRY_AFTER_DIGITS = 6


class DeliveryError(Exception):
    """A request that got no answer; ``code`` says why: address_refused, timeout, unreachable, tls or bad_answer."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Answer(msgspec.Struct, frozen=True):
    """A receiver's answer."""

    status: int
    retry_after_seconds: int = 0


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
        return guarded_socket(self._passes, address_info)

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
