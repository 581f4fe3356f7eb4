"""Any OpenAI-compatible ``/v1/embeddings`` endpoint as an engine.

Its address comes from the operator's configuration and may be private. What these calls cost is the operator's, as they
serve the platform's own search and caches; a tenant's calls of ``/v1/embeddings`` are workers' attempts, and booked.
One rule: a call that may have been carried out is made again only where its kind of failure passes by itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import random
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec
import numpy as np
import structlog
from collegium_settings.embeddings import EmbeddingsSettings

from collegium_context.embedding.interface import Counted, EmbedderUnavailableError, Vectors

log = structlog.get_logger(__name__)

BATCH_TEXTS_MAX: Final = 128
CALLS_AT_ONCE: Final = 4
TRIES: Final = 3
REPLY_BYTES_MAX: Final = 32 * 1024 * 1024
QUEUE_TEXTS_MAX: Final = 32_768
# Between two questions for how long vectors are, while nobody has said.
LEARN_SECONDS: Final = 2.0
_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE_SECONDS: Final = 10.0


class _Item(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Reply(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Reply).decode


class _Passing(Exception):  # noqa: N818 - an outcome, not a defect
    """A call that failed in a way that passes by itself."""

    def __init__(self, what: str, after_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.after_seconds = after_seconds


class EndpointEngine:
    """Computes vectors by asking an endpoint, with at most CALLS_AT_ONCE calls at a time."""

    def __init__(self, settings: EmbeddingsSettings) -> None:
        assert settings.base_url is not None, "without an address the bundled embedder is meant"
        self._settings = settings
        self._url = settings.base_url.rstrip("/") + "/embeddings"
        headers = {"Content-Type": "application/json"}
        if settings.api_key:
            headers["Authorization"] = f"Bearer {settings.api_key.reveal()}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds, sock_connect=10),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._calls = asyncio.Semaphore(settings.limits.concurrency or CALLS_AT_ONCE)
        self._dimensions = settings.dimensions or 0
        self._waiting = 0
        self._learning: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._settings.name

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has, as configured or as answered before."""
        if not self._dimensions:
            raise EmbedderUnavailableError(f"embedder {self.model} has not said yet how long its vectors are")
        return self._dimensions

    @property
    def waiting(self) -> int:
        """How many texts wait for their vector."""
        return self._waiting

    async def compute(self, texts: Sequence[str]) -> Counted:
        """Returns vectors and tokens; raises :class:`EmbedderUnavailableError`."""
        if self._waiting and self._waiting + len(texts) > QUEUE_TEXTS_MAX:
            raise EmbedderUnavailableError(f"{self._waiting} texts wait to be embedded already; ask again")
        self._waiting += len(texts)
        parts = [texts[begin : begin + BATCH_TEXTS_MAX] for begin in range(0, len(texts), BATCH_TEXTS_MAX)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._part(part)) for part in parts]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._waiting -= len(texts)
        done = [task.result() for task in tasks]
        if not done:
            return Counted(np.zeros((0, self._dimensions), dtype=np.float32), [])
        return Counted(np.concatenate([one.vectors for one in done]), [one for part in done for one in part.tokens])

    async def learn(self) -> None:
        """Asks how long vectors are; where the endpoint does not answer, goes on asking beside whoever else asks.

        Nobody makes a place for vectors of an unknown length, and so nobody else might ever ask. Raises
        EmbedderUnavailableError where it has to be asked again.
        """
        try:
            await self.compute(["dimensions"])
        except EmbedderUnavailableError:
            self._learning = asyncio.create_task(self._learn(), name="embedder-length")
            raise

    async def _learn(self) -> None:
        while not self._dimensions:
            await asyncio.sleep(LEARN_SECONDS)
            with contextlib.suppress(EmbedderUnavailableError):
                await self.compute(["dimensions"])

    async def close(self) -> None:
        """Closes the connections."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        await self._session.close()

    async def _part(self, texts: Sequence[str]) -> Counted:
        async with self._calls:
            for number in range(1, TRIES + 1):
                try:
                    return self._read(await self._call(texts), texts)
                except _Passing as failed:
                    if number == TRIES:
                        raise EmbedderUnavailableError(f"the endpoint of embedder {self.model}: {failed}") from None
                    pause = max(failed.after_seconds, random.uniform(0.1, 0.25 * 2**number))  # noqa: S311 - jitter
                    log.info("embedding is asked for again", model=self.model, error=str(failed))
                    await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        raise AssertionError("the last try returned or raised")

    async def _call(self, texts: Sequence[str]) -> bytes:
        asked: dict[str, object] = {
            "model": self._settings.upstream_model or self.model,
            "input": list(texts),
            "encoding_format": "base64",
        }
        if self._settings.dimensions is not None:
            asked["dimensions"] = self._settings.dimensions
        try:
            async with self._session.post(self._url, data=msgspec.json.encode(asked)) as response:
                if response.status in _PASSING:
                    after = response.headers.get("Retry-After", "")
                    seconds = float(after) if after.replace(".", "", 1).isdigit() else 0.0
                    raise _Passing(f"it answered {response.status}", seconds)
                if response.status >= 400:
                    raise EmbedderUnavailableError(
                        f"the endpoint of embedder {self.model} answered {response.status}; check its configuration"
                    )
                content = bytearray()
                async for part in response.content.iter_any():
                    content += part
                    if len(content) > REPLY_BYTES_MAX:
                        text = f"the endpoint of embedder {self.model} answered more than {REPLY_BYTES_MAX} bytes"
                        raise EmbedderUnavailableError(text)
                return bytes(content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Passing(type(error).__name__) from None

    def _read(self, content: bytes, texts: Sequence[str]) -> Counted:
        try:
            reply = _decode(content)
            ordered = sorted(
                enumerate(reply.data), key=lambda pair: pair[0] if pair[1].index is None else pair[1].index
            )
            rows = [_numbers(item.embedding) for _, item in ordered]
            vectors: Vectors = np.stack(rows)
        except (msgspec.DecodeError, ValueError, binascii.Error):
            raise _Passing(f"{len(content)} bytes that are no embeddings") from None
        if len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise _Passing(f"{len(vectors)} vectors for {len(texts)} texts, or not of numbers")
        length = vectors.shape[1]
        if self._dimensions and length != self._dimensions:
            raise EmbedderUnavailableError(
                f"vectors of embedder {self.model} have {length} dimensions, and had {self._dimensions}: another model"
                " needs another name"
            )
        self._dimensions = length
        return Counted(vectors, _shares(reply.usage.prompt_tokens if reply.usage is not None else 0, texts))


def _numbers(vector: list[float] | str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    if isinstance(vector, str):
        return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4").astype(np.float32)
    return np.array(vector, dtype=np.float32)


def _shares(tokens: int, texts: Sequence[str]) -> list[int]:
    """Shares the tokens of a call out over its texts by their length; their sum stays what was counted."""
    length = sum(len(text) for text in texts) or 1
    shares: list[int] = []
    seen = given = 0
    for text in texts:
        seen += len(text)
        shares.append(tokens * seen // length - given)
        given += shares[-1]
    return shares
