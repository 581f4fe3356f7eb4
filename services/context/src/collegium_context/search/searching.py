"""One search, whole: both signals asked, fused, ranked for who asks, cut, spread, fitted into the budget, explained.

One rule: what is away is said. Without the embedder the words answer alone and the reply says so; without the vector
store, or the database, there is no answer but a refusal that may be asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.knowledge import (
    ProfileWeights,
    SearchAsked,
    SearchExplain,
    SearchMode,
    SearchRerank,
    SearchResult,
)
from collegium_contracts.scope import Scope

from collegium_context.documents.chunking import Chunk
from collegium_context.documents.generations import Generation
from collegium_context.documents.naming import indexed_text
from collegium_context.documents.putting import ChunkBody
from collegium_context.documents.spaces import Spaces
from collegium_context.embedding.interface import EmbedderUnavailableError, Vectors
from collegium_context.search.answers import Answers
from collegium_context.search.filtering import where_of
from collegium_context.search.fusion import Candidate, by_rank, fused
from collegium_context.search.profiles import factor_of
from collegium_context.search.reranking import Reranker, RerankerUnavailableError, again
from collegium_context.search.shaping import Vector, over_threshold, spread, within_budget
from collegium_context.search.store import FoundChunk, SearchStore
from collegium_context.search.tuning import Agreements
from collegium_context.vectors.interface import (
    InvalidQuestionError,
    Looked,
    UnknownCollectionError,
    VectorStore,
    VectorStoreError,
)

log = structlog.get_logger(__name__)

DEPTH_MIN, DEPTH_MAX = 100, 400
# Told while the index that answers is of an embedder that cannot be asked any more.
REINDEXING = "reindexing"
RERANKED = "done"
# An answer travels in one message.
REPLY_BYTES_MAX = 700 * 1024

_decode_body = msgspec.msgpack.Decoder(ChunkBody).decode
_encode_asked = msgspec.json.Encoder(order="deterministic").encode


class Answer(NamedTuple):
    """What a search found; ``degraded`` says why it is less than was asked for."""

    results: list[SearchResult]
    mode: SearchMode
    degraded: str
    weight: float
    knowledge_version: int
    tokens: int
    reranked: str = ""


class _Picked(NamedTuple):
    candidate: Candidate
    chunk: FoundChunk
    body: ChunkBody
    profile: float
    score: float
    rerank: SearchRerank | None = None


class Searching:
    """Searches a tenant's documents."""

    def __init__(
        self,
        store: SearchStore,
        vectors: VectorStore,
        spaces: Spaces,
        keyring: Keyring,
        reranker: Reranker | None = None,
    ) -> None:
        self._reranker = reranker
        self._store = store
        self._vectors = vectors
        self._spaces = spaces
        self._keyring = keyring
        self._answers: Answers[Answer] = Answers()
        self._agreements = Agreements()
        self._asked = ""

    def forget(self, tenant: str) -> None:
        """Lets go of what is remembered of a tenant."""
        self._answers.forget(tenant)
        self._agreements.forget(tenant)

    async def search(
        self, scope: Scope, asked: SearchAsked, profile: ProfileWeights | None = None
    ) -> tuple[Answer, bool]:
        """Returns the answer, and whether it is one that was given before; raises RequestRefusedError."""
        version, serving = await self._store.state(scope)
        if serving is not None and serving.collection != self._asked:
            # How far two sides agree says nothing of another embedder.
            self._agreements, self._asked = Agreements(), serving.collection
        question = hashlib.sha256(_encode_asked([asked, profile, serving])).digest()
        kept = self._answers.get(scope, version, question)
        if kept is not None:
            return kept, True
        answer = await self._search(scope, asked, profile, version, serving)
        if not answer.degraded and answer.reranked in ("", RERANKED):
            self._answers.put(scope, version, question, answer)
        return answer, False

    async def _search(
        self,
        scope: Scope,
        asked: SearchAsked,
        profile: ProfileWeights | None,
        version: int,
        serving: Generation | None,
    ) -> Answer:
        wordings = [asked.query, *asked.queries]
        vectors, degraded = await self._vectors_of(asked, wordings, serving)
        mode: SearchMode = "words" if vectors is None else asked.mode
        looking = [
            self._look(scope, asked, text, None if vectors is None else vectors[place], mode, serving)
            for place, text in enumerate(wordings)
        ]
        looked = await asyncio.gather(*looking)
        weight = self._weight(scope, asked, looked[0], mode)
        candidates = by_rank([fused(one.dense, one.words, weight) for one in looked])
        picked = await self._pick(scope, asked, candidates, profile)
        picked, reranked = await self._rerank(asked, picked)
        picked = over_threshold(_preferred(picked, profile), asked.threshold)
        near = {hit.id: hit.vector for one in looked for hit in (*one.dense, *one.words) if hit.vector is not None}
        chosen = spread(
            picked, [near.get(one.candidate.id) for one in picked], diversity=asked.diversity, limit=asked.limit
        )
        fits = within_budget([one.chunk.tokens for one, _ in chosen], asked.budget_tokens)
        kept = [chosen[place] for place in fits]
        results = _within_bytes([_result(one, value, weight, asked) for one, value in kept])
        tokens = sum(one.chunk.tokens for one, _ in kept[: len(results)])
        return Answer(results, mode, degraded, weight, version, tokens, reranked)

    async def _vectors_of(
        self, asked: SearchAsked, wordings: list[str], serving: Generation | None
    ) -> tuple[Vectors | None, str]:
        if asked.mode == "words":
            return None, ""
        embedder = self._spaces.current if serving is None else self._spaces.embedder_of(serving)
        if embedder is None:
            if asked.mode == "dense":
                raise RequestRefusedError(
                    "embedder_unavailable",
                    "documents are embedded anew for another embedder; ask again later, or search by words",
                    "mode",
                )
            return None, REINDEXING
        try:
            return await embedder.embed(wordings), ""
        except EmbedderUnavailableError as error:
            if asked.mode == "dense":
                raise RequestRefusedError(
                    error.code, "questions cannot be embedded now; ask again, or search by words", "mode"
                ) from error
            log.warning("searching by words alone", reason=str(error))
            return None, error.code

    async def _look(
        self,
        scope: Scope,
        asked: SearchAsked,
        text: str,
        vector: Vector | None,
        mode: SearchMode,
        serving: Generation | None,
    ) -> Looked:
        if serving is None:
            return Looked()
        depth = min(DEPTH_MAX, max(DEPTH_MIN, 4 * asked.limit))
        try:
            return await self._vectors.look(
                scope,
                serving.collection,
                vector=vector,
                words=None if mode == "dense" else text,
                where=where_of(scope.tenant, asked.filters),
                limit=depth,
                with_vectors=asked.diversity > 0,
            )
        except UnknownCollectionError:
            return Looked()
        except InvalidQuestionError as error:
            raise RequestRefusedError("invalid_value", str(error), "query") from error
        except VectorStoreError as error:
            log.warning("search is not possible", code=error.code, reason=str(error))
            raise RequestRefusedError(
                "vector_store_unavailable", "documents cannot be searched now; ask again"
            ) from error

    def _weight(self, scope: Scope, asked: SearchAsked, looked: Looked, mode: SearchMode) -> float:
        if mode != "hybrid":
            return 1.0 if mode == "dense" else 0.0
        if asked.filters == type(asked.filters)():
            self._agreements.see(scope.tenant, looked.dense, looked.words)
        return self._agreements.of(scope.tenant).weight if asked.weight is None else asked.weight

    async def _pick(
        self, scope: Scope, asked: SearchAsked, candidates: Sequence[Candidate], profile: ProfileWeights | None
    ) -> list[_Picked]:
        """Returns as many of the candidates as are needed, those that no document has any more left out."""
        # A profile moves what it likes to the front from further behind, and diversity chooses among more.
        wanted = 4 * asked.limit if profile is not None or asked.diversity > 0 else asked.limit
        if asked.rerank and self._reranker is not None:
            wanted = max(wanted, self._reranker.results_max)
        picked: list[_Picked] = []
        place = 0
        while place < len(candidates) and len(picked) < wanted:
            some = candidates[place : place + wanted]
            place += wanted
            picked += await self._opened(scope, some, profile)
        return picked

    async def _rerank(self, asked: SearchAsked, picked: list[_Picked]) -> tuple[list[_Picked], str]:
        """Returns the order after reranking, and what came of it: nothing where it was not asked for."""
        if not asked.rerank:
            return picked, ""
        if self._reranker is None:
            raise RequestRefusedError("unsupported_option", "no reranker is configured (search.rerank)", "rerank")
        first = picked[: self._reranker.results_max]
        try:
            raw = await self._reranker.scores(asked.query, [_text_of(one.body) for one in first]) if first else []
        except RerankerUnavailableError as error:
            return picked, error.code
        made: list[_Picked] = []
        for after, place in enumerate(again(raw, [one.score for one in picked]), 1):
            said = None
            if place.raw is not None:
                said = SearchRerank(self._reranker.model, place.raw, place.before + 1, after)
            made.append(picked[place.before]._replace(score=place.score, rerank=said))
        return made, RERANKED

    async def _opened(
        self, scope: Scope, candidates: Sequence[Candidate], profile: ProfileWeights | None
    ) -> list[_Picked]:
        found = await self._store.chunks(scope, [one.id for one in candidates])
        await held(self._keyring, scope.tenant, *(chunk.body for chunk in found.values()))
        opened: list[_Picked] = []
        for one in candidates:
            chunk = found.get(one.id)
            if chunk is None:
                continue
            try:
                body = _decode_body(self._keyring.open(scope.tenant, chunk.body))
            except (UnknownKeyError, msgspec.DecodeError) as error:
                log.error("a chunk cannot be read", tenant=scope.tenant, document=chunk.document)
                raise RequestRefusedError(
                    "internal_error", f"document {chunk.document} holds text that cannot be read; see context's log"
                ) from error
            factor = factor_of(profile, body.tags, body.fields) if profile is not None else 1.0
            opened.append(_Picked(one, chunk, body, factor, one.score))
        return opened


def _preferred(picked: list[_Picked], profile: ProfileWeights | None) -> list[_Picked]:
    if profile is None:
        return picked
    best = max((one.profile for one in picked), default=1.0)
    moved = [one._replace(score=one.score * one.profile / max(1.0, best)) for one in picked]
    moved.sort(key=lambda one: -one.score)
    return moved


def _text_of(body: ChunkBody) -> str:
    return indexed_text(body.title, Chunk(body.text, body.headings, 0))


def _result(one: _Picked, value: float, weight: float, asked: SearchAsked) -> SearchResult:
    explain = None
    if asked.explain:
        explain = SearchExplain(
            dense=one.candidate.dense,
            words=one.candidate.words,
            weight=weight,
            fused=one.candidate.score,
            profile=one.profile,
            diversity=value if asked.diversity > 0 else None,
            queries=list(one.candidate.ranks),
            rerank=one.rerank,
        )
    body = one.body
    return SearchResult(
        document=one.chunk.document,
        chunk=one.chunk.ordinal,
        score=one.score,
        text=body.text,
        title=body.title,
        headings=body.headings,
        tags=body.tags,
        fields=body.fields,
        explain=explain,
    )


def _within_bytes(results: Sequence[SearchResult]) -> list[SearchResult]:
    kept: list[SearchResult] = []
    size = 0
    for result in results:
        size += len(msgspec.json.encode(result)) + 1
        if size > REPLY_BYTES_MAX:
            break
        kept.append(result)
    return kept
