"""Calling an OpenAI-compatible endpoint over one pooled HTTP client.

A call ends in a :class:`CallResult` or in :class:`CallFailed`; text that was streamed before a failure stays with the
call, so that it can be billed; so does whether the request had gone out. One rule: nothing here retries; whoever asked
decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
import msgspec
from aiohttp.connector import Connection
from collegium_contracts.addresses import is_refused
from collegium_contracts.content import Answer
from collegium_contracts.errors import TaskError
from collegium_runtime.failpoints import failpoint
from collegium_runtime.guarded import GuardedResolver, guarded_socket

from collegium_worker_pool.upstream import failures
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.metering import UpstreamUsage
from collegium_worker_pool.upstream.wire import (
    Chunk,
    StreamedAnswer,
    answer_of,
    decode_chunk,
    decode_completion,
    logprob_of,
    taught_of,
)

# An answer is bounded by max_tokens; an endpoint that ignores it is cut here.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# One event of a stream holds a few tokens, or the arguments of a tool call.
MAX_EVENT_BYTES = 1024 * 1024
MAX_CONNECTIONS = 1024

OnText = Callable[[str], None]


class CallResult(msgspec.Struct, frozen=True):
    """A finished call: the answer, the endpoint's usage (none where it gave none), the model it says it was, the
    answer's mean log-probability, and how probably right it is (each none where it is not told)."""

    answer: Answer
    usage: UpstreamUsage | None
    model: str
    logprob: float | None = None
    confidence: float | None = None


# Whom the call of this task tells that its request goes out.
_calling: ContextVar[StreamedAnswer | None] = ContextVar("calling", default=None)


class _Connector(aiohttp.TCPConnector):
    """Notes when a call has its connection, as its request then goes out. A trace of aiohttp would cost more."""

    async def connect(self, *args: Any, **named: Any) -> Connection:
        connection = await super().connect(*args, **named)
        if (into := _calling.get()) is not None:
            into.is_sent = True
            into.sent_at = time.monotonic()
        return connection


class Upstream:
    """The pooled client. ``open`` and ``close`` bracket its life.

    ``into`` of a call learns when the request goes out, and what came of a stream.
    """

    def __init__(self, allows_private: Callable[[], bool] = lambda: False) -> None:
        self._allows_private = allows_private
        self._session: aiohttp.ClientSession | None = None
        # For addresses that somebody named while the platform ran.
        self._guarded: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Opens the pool."""
        self._session = _session(_Connector(limit=MAX_CONNECTIONS, keepalive_timeout=60, ttl_dns_cache=60))
        self._guarded = _session(
            _Connector(
                limit=MAX_CONNECTIONS,
                keepalive_timeout=60,
                ttl_dns_cache=60,
                resolver=GuardedResolver(self._passes),
                socket_factory=lambda address: guarded_socket(self._passes, address),
            )
        )

    async def close(self) -> None:
        """Closes the pool."""
        for session in (self._session, self._guarded):
            if session is not None:
                await session.close()

    def pool_of(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        """Returns the client for an endpoint; ``open`` comes first."""
        session = self._guarded if endpoint.is_guarded else self._session
        assert session is not None, "open() comes first"
        return session

    def _passes(self, address: str) -> bool:
        return self._allows_private() or not is_refused(address)

    async def complete(
        self,
        model: str,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[str, str],
        *,
        into: StreamedAnswer | None = None,
    ) -> CallResult:
        """Makes one call without streaming."""
        content = await self.post(model, endpoint, body, headers, into=into)
        try:
            completion = decode_completion(content)
        except (msgspec.DecodeError, ValueError):
            raise CallFailed(failures.garbage(model, f"{len(content)} bytes that are no completion")) from None
        if not completion.choices:
            raise CallFailed(failures.garbage(model, "no choices"))
        answer = taught_of(completion) if into is not None and into.teaches else answer_of(completion)
        return CallResult(answer, completion.usage, completion.model, logprob_of(completion))

    async def post(
        self,
        model: str,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[str, str],
        *,
        into: StreamedAnswer | None = None,
    ) -> bytes:
        """Makes one call and returns what was answered to it."""
        async with self._post(model, endpoint, body, headers, into) as response:
            content = await _read(model, response)
            if response.status >= 400:
                raise CallFailed(
                    failures.from_status(model, response.status, content, response.headers.get("Retry-After"))
                )
        return content

    async def stream(
        self,
        model: str,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[str, str],
        *,
        into: StreamedAnswer,
        on_text: OnText,
    ) -> CallResult:
        """Makes one call with streaming; ``into`` holds what has come, also when the call fails."""
        async with self._post(model, endpoint, body, headers, into) as response:
            if response.status >= 400:
                content = await _read(model, response)
                raise CallFailed(
                    failures.from_status(model, response.status, content, response.headers.get("Retry-After"))
                )
            try:
                await _read_events(model, response, into, on_text)
            except (aiohttp.ClientError, ValueError) as error:
                raise CallFailed(failures.cut(model, len(into.text))) from error
        if not into.finished:
            raise CallFailed(failures.cut(model, len(into.text)))
        return CallResult(into.answer(), into.usage, into.model)

    def _post(
        self, model: str, endpoint: Endpoint, body: bytes, headers: dict[str, str], into: StreamedAnswer | None
    ) -> _Guarded:
        session = self.pool_of(endpoint)
        _calling.set(into)
        request = session.post(
            endpoint.url,
            data=body,
            headers={**endpoint.headers, **headers},
            allow_redirects=not endpoint.is_guarded,
        )
        return _Guarded(model, request)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
    )


class _Guarded:
    """Turns connection failures of a request into :class:`CallFailed`."""

    def __init__(self, model: str, request: aiohttp.client._RequestContextManager) -> None:  # pyright: ignore[reportPrivateUsage]
        self._model = model
        self._request = request

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            response = await self._request.__aenter__()
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(failures.unreachable(self._model, type(error).__name__)) from error
        failpoint("worker-pool.during-call")
        return response

    async def __aexit__(self, *exc_info: object) -> None:
        # A response that was not read to its end is closed, so that the endpoint sees the abort.
        await self._request.__aexit__(*exc_info)  # pyright: ignore[reportArgumentType]


async def _read_events(model: str, response: aiohttp.ClientResponse, into: StreamedAnswer, on_text: OnText) -> None:
    """Reads server-sent events up to ``[DONE]``, a network read at a time, because a read may hold many of them."""
    rest = b""
    while part := await response.content.readany():
        *lines, rest = (rest + part).split(b"\n")
        texts: list[str] = []
        try:
            if _take(model, lines, into, texts):
                return
        finally:
            if into.has_begun and into.first_token_seconds is None:
                into.first_token_seconds = time.monotonic() - into.sent_at
            # What came before a broken event was said, and is sent on.
            if text := "".join(texts):
                on_text(text)
        if len(rest) > MAX_EVENT_BYTES:
            raise CallFailed(_too_long(model))


def _take(model: str, lines: list[bytes], into: StreamedAnswer, texts: list[str]) -> bool:
    """Adds the events of these lines to the answer and their text to ``texts``; true at the stream's end."""
    for line in lines:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return True
            texts.append(into.add(_chunk(model, data)))
            if into.characters > MAX_ANSWER_BYTES:
                raise CallFailed(_too_long(model))
    return False


async def _read(model: str, response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    try:
        async for part in response.content.iter_any():
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise CallFailed(_too_long(model))
    except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
        raise CallFailed(failures.cut(model, 0)) from error
    return bytes(content)


def _too_long(model: str) -> TaskError:
    return failures.garbage(model, f"more than the {MAX_ANSWER_BYTES} bytes that are accepted")


def _chunk(model: str, data: bytes) -> Chunk:
    try:
        chunk = decode_chunk(data)
    except (msgspec.DecodeError, ValueError):
        raise CallFailed(failures.garbage(model, "a stream event that is no chunk")) from None
    if chunk.error is not None:
        raise CallFailed(failures.from_status(model, 500, msgspec.json.encode({"error": chunk.error}), None))
    return chunk
