"""Ranking the first results again: by an endpoint with ``/rerank`` as Cohere, Jina and their likes have it.

Its address comes from the operator's configuration and may be private; its calls are the operator's cost. One rule: a
reranker that is away, slow or wrong leaves the order as it was, and that is said.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Final, Protocol

import aiohttp
import msgspec
import structlog
from collegium_settings.search import RerankSettings

from collegium_context.errors import ContextError

log = structlog.get_logger(__name__)

REPLY_BYTES_MAX: Final = 1024 * 1024
# What is sent of one text: rerankers read some hundred tokens.
TEXT_CHARACTERS_MAX: Final = 4_000
# After a failure nobody waits for it again for so long.
AWAY_SECONDS: Final = 10.0


class RerankerUnavailableError(ContextError):
    """The results cannot be ranked again now."""

    code = "reranker_unavailable"


class Reranker(Protocol):
    """Scores texts for a question."""

    @property
    def model(self) -> str:
        """Its name, as it is explained."""
        ...

    @property
    def results_max(self) -> int:
        """How many results it is given."""
        ...

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """Returns one score a text, the higher the better; raises :class:`RerankerUnavailableError`."""
        ...


class _Result(msgspec.Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _Reply(msgspec.Struct):
    results: list[_Result]


_decode = msgspec.json.Decoder(_Reply | list[_Result]).decode


class EndpointReranker:
    """An endpoint; the connections open with the first question."""

    def __init__(self, settings: RerankSettings) -> None:
        assert settings.base_url is not None, "without an address there is no reranker"
        assert settings.model is not None, "an endpoint's model has a name"
        self.model = settings.model
        self.results_max = settings.results
        self._url = settings.base_url.rstrip("/") + "/rerank"
        self._key = settings.api_key
        self._seconds = settings.timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._away_until = -math.inf

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """Returns one score a text; raises :class:`RerankerUnavailableError`."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise RerankerUnavailableError("the reranker was away a moment ago")
        asked: dict[str, object] = {
            "model": self.model,
            "query": question,
            "documents": [text[:TEXT_CHARACTERS_MAX] for text in texts],
            "top_n": len(texts),
            "return_documents": False,
        }
        try:
            async with asyncio.timeout(self._seconds):
                return _scores(await self._call(asked), len(texts))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = type(error).__name__
        except RerankerUnavailableError as error:
            reason = str(error)
        self._away_until = loop.time() + AWAY_SECONDS
        log.warning("results are not ranked again", model=self.model, reason=reason)
        raise RerankerUnavailableError(reason)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(self, asked: dict[str, object]) -> bytes:
        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key.reveal()}"
            self._session = aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar())
        async with self._session.post(self._url, data=msgspec.json.encode(asked), allow_redirects=False) as response:
            if response.status != 200:
                raise RerankerUnavailableError(f"it answered {response.status}")
            content = bytearray()
            async for part in response.content.iter_any():
                content += part
                if len(content) > REPLY_BYTES_MAX:
                    raise RerankerUnavailableError(f"it answered more than {REPLY_BYTES_MAX} bytes")
            return bytes(content)


def _scores(content: bytes, texts: int) -> list[float]:
    try:
        reply = _decode(content)
    except msgspec.DecodeError:
        raise RerankerUnavailableError(f"it answered {len(content)} bytes that are no ranking") from None
    found: dict[int, float] = {}
    for one in reply if isinstance(reply, list) else reply.results:
        score = one.score if one.relevance_score is None else one.relevance_score
        if score is not None and math.isfinite(score):
            found[one.index] = score
    if found.keys() != set(range(texts)):
        raise RerankerUnavailableError(f"it scored {len(found)} of {texts} texts, or others")
    return [found[place] for place in range(texts)]


def shares(scores: Sequence[float]) -> list[float]:
    """Returns scores from 0 to 1 in the same order: as they are, or, where some are outside, by the logistic curve."""
    if all(0 <= score <= 1 for score in scores):
        return list(scores)
    return [1 / (1 + math.exp(-max(-500.0, min(500.0, score)))) for score in scores]


class Again(msgspec.Struct, frozen=True):
    """A place in the list as it was, with its score now; ``raw`` is the reranker's own, none where it was not asked."""

    before: int
    score: float
    raw: float | None


def again(raw: Sequence[float], old: Sequence[float]) -> list[Again]:
    """Returns the new order: what was scored again, best first, then the rest as it stood, below all of it. Pure."""
    scored = [Again(place, score, own) for place, (score, own) in enumerate(zip(shares(raw), raw, strict=True))]
    scored.sort(key=lambda one: -one.score)
    floor = scored[-1].score if scored else 1.0
    return [*scored, *(Again(place, floor * old[place], None) for place in range(len(raw), len(old)))]


def opened(settings: RerankSettings) -> EndpointReranker | None:
    """Returns the configured reranker, or none."""
    return EndpointReranker(settings) if settings.base_url is not None else None
