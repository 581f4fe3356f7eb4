"""Calling an OpenAI-compatible endpoint over one pooled HTTP client.

A call ends in a :class:`CallResult` or in :class:`CallFailed`; text that was streamed before a failure stays with the
call, so that it can be billed. One rule: nothing here retries; whoever asked decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import msgspec
from collegium_contracts.content import Answer
from collegium_contracts.errors import TaskError
from collegium_runtime.failpoints import failpoint

from collegium_worker_pool import failures
from collegium_worker_pool.endpoints import Endpoint
from collegium_worker_pool.failures import CallFailed
from collegium_worker_pool.metering import UpstreamUsage
from collegium_worker_pool.wire import Chunk, StreamedAnswer, answer_of, decode_chunk, decode_completion

# An answer is bounded by max_tokens; an endpoint that ignores it is cut here.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# One event of a stream holds a few tokens, or the arguments of a tool call.
MAX_EVENT_BYTES = 1024 * 1024
MAX_CONNECTIONS = 1024

OnText = Callable[[str], None]


class CallResult(msgspec.Struct, frozen=True):
    """A finished call: the answer, the endpoint's usage (none where it gave none), and the model it says it was."""

    answer: Answer
    usage: UpstreamUsage | None
    model: str


class Upstream:
    """The pooled client. ``open`` and ``close`` bracket its life."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Opens the pool."""
        connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=60, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )

    async def close(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()

    async def complete(self, model: str, endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> CallResult:
        """Makes one call without streaming."""
        content = await self.post(model, endpoint, body, headers)
        try:
            completion = decode_completion(content)
        except (msgspec.DecodeError, ValueError):
            raise CallFailed(failures.garbage(model, f"{len(content)} bytes that are no completion")) from None
        if not completion.choices:
            raise CallFailed(failures.garbage(model, "no choices"))
        return CallResult(answer_of(completion), completion.usage, completion.model)

    async def post(self, model: str, endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> bytes:
        """Makes one call and returns what was answered to it."""
        async with self._post(model, endpoint, body, headers) as response:
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
        async with self._post(model, endpoint, body, headers) as response:
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

    def _post(self, model: str, endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> _Guarded:
        assert self._session is not None, "open() comes first"
        return _Guarded(model, self._session.post(endpoint.url, data=body, headers={**endpoint.headers, **headers}))


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
