"""Further wordings and reranking: fused, explained, and without effect where they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import build
from collegium_context.search import reranking
from collegium_context.search.fusion import Candidate, by_rank, fused
from collegium_context.search.reranking import EndpointReranker, RerankerUnavailableError, again, shares
from collegium_contracts import knowledge as k
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_settings import Settings
from collegium_settings.search import RerankSettings, SearchSettings
from collegium_settings.secret import Secret
from collegium_testing import eventually


def candidates(*ids: str) -> list[Candidate]:
    return [Candidate(one, 1.0 - place / 10, None, None) for place, one in enumerate(ids)]


def test_wordings_are_fused_by_rank_and_the_plain_one_counts_as_much_as_all_others() -> None:
    plain, other, third = candidates("a", "b"), candidates("c", "b"), candidates("c")
    made = by_rank([plain, other, third])
    assert [one.id for one in made] == ["b", "a", "c"], "of equals the plain wording's is first"
    assert {one.id: one.ranks for one in made} == {"a": (1, None, None), "b": (2, 2, None), "c": (None, 1, 1)}
    assert by_rank([plain]) == plain
    everywhere = by_rank([plain, candidates("a"), candidates("a")])
    assert (everywhere[0].id, everywhere[0].score) == ("a", pytest.approx(1.0))
    assert by_rank([fused([], [], 0.5), plain])[0].score == pytest.approx(0.5)


def test_the_order_after_reranking() -> None:
    made = again([0.1, 0.9], [1.0, 0.8, 0.5])
    assert [(one.before, one.raw) for one in made] == [(1, 0.9), (0, 0.1), (2, None)]
    assert [one.score for one in made] == pytest.approx([0.9, 0.1, 0.05])
    assert again([], [1.0, 0.5])[0].before == 0
    low, high = shares([-12.0, 5.0])
    assert 0 < low < high < 1
    assert shares([-1e9, 1e9]) == pytest.approx([0.0, 1.0])


class Endpoint:
    """Scores a text by how often it says ``moon``, or answers what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.keys: list[str | None] = []
        self.url = ""
        self.answer: Any = None
        self.status = 200
        self.delay_seconds = 0.0

    async def rerank(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.asked.append(asked)
        self.keys.append(request.headers.get("Authorization"))
        await asyncio.sleep(self.delay_seconds)
        scored = [(place, text.count("moon") / 10) for place, text in enumerate(asked["documents"])]
        scored.sort(key=lambda one: -one[1])
        results = [{"index": place, "relevance_score": score} for place, score in scored]
        answer = {"results": results} if self.answer is None else self.answer
        return web.json_response(answer, status=self.status)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/rerank", made.rerank)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


@pytest.fixture
async def reranker(endpoint: Endpoint) -> AsyncIterator[EndpointReranker]:
    made = EndpointReranker(
        RerankSettings(base_url=endpoint.url, model="judge", api_key=Secret("sk-rank"), timeout_seconds=5)
    )
    yield made
    await made.close()


async def test_an_endpoint_scores_as_cohere_jina_and_others_answer(
    reranker: EndpointReranker, endpoint: Endpoint
) -> None:
    assert await reranker.scores("tides", ["sun", "moon moon", "moon"]) == [0.0, 0.2, 0.1]
    asked = endpoint.asked[0]
    assert (asked["model"], asked["query"], asked["top_n"], endpoint.keys) == ("judge", "tides", 3, ["Bearer sk-rank"])
    endpoint.answer = [{"index": 1, "score": -3.0}, {"index": 0, "score": 4.0}]
    assert await reranker.scores("tides", ["a", "b"]) == [4.0, -3.0]


@pytest.mark.parametrize(
    "answer",
    [
        {"results": [{"index": 0, "relevance_score": 0.5}]},
        {"results": [{"index": 0, "relevance_score": 0.5}, {"index": 7, "relevance_score": 0.5}]},
        {"results": [{"index": 0}, {"index": 1}]},
        {"data": "else"},
        "text",
    ],
)
async def test_a_wrong_answer_is_none_and_nobody_waits_for_the_next(
    reranker: EndpointReranker, endpoint: Endpoint, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answer = answer
    for _ in range(2):
        with pytest.raises(RerankerUnavailableError):
            await reranker.scores("tides", ["a", "b"])
    assert len(endpoint.asked) == 1
    monkeypatch.setattr(reranking, "AWAY_SECONDS", 0.0)


async def test_an_endpoint_that_refuses_is_slow_or_gone_is_away(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "AWAY_SECONDS", 0.0)
    reranker = EndpointReranker(RerankSettings(base_url=endpoint.url, model="judge", timeout_seconds=0.2))
    endpoint.status = 500
    with pytest.raises(RerankerUnavailableError):
        await reranker.scores("q", ["a"])
    endpoint.status, endpoint.delay_seconds = 200, 2.0
    with pytest.raises(RerankerUnavailableError):
        await reranker.scores("q", ["a"])
    await reranker.close()
    gone = EndpointReranker(RerankSettings(base_url="http://127.0.0.1:9/v1", model="judge"))
    with pytest.raises(RerankerUnavailableError):
        await gone.scores("q", ["a"])
    await gone.close()


def sealed(value: Any) -> Envelope:
    return Envelope("identity", b"", value if isinstance(value, bytes) else msgspec.json.encode(value))


async def search(connection: Any, query: str, **fields: Any) -> tuple[list[k.SearchResult], k.SearchReply]:
    question = k.SearchRequest(tenant="acme", asked=sealed(k.SearchAsked(query=query, explain=True, **fields)))
    reply = await ask(connection, s.SVC_KNOWLEDGE_SEARCH, question, k.SearchReply, timeout_seconds=30)
    return msgspec.json.decode(reply.results.body, type=list[k.SearchResult]), reply


async def add(connection: Any, document: str, text: str) -> None:
    content, meta = sealed(text.encode()), sealed(k.DocumentMeta())
    question = k.DocumentAdd(tenant="acme", document=document, content=content, meta=meta)
    await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_ADD, question, k.DocumentReply)

    async def is_indexed() -> bool:
        asked = k.DocumentGet(tenant="acme", document=document)
        row = (await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_GET, asked, k.DocumentReply)).document
        return row.state == "indexed"

    await eventually(is_indexed)


@pytest.mark.timeout(240)
async def test_results_are_ranked_again_and_every_step_is_explained(
    platforms: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "AWAY_SECONDS", 0.0)
    rerank = RerankSettings(base_url=endpoint.url, model="judge", results=3)
    platform = await platforms(settings=Settings(search=SearchSettings(rerank=rerank)))
    connection = platform.connection
    app = build(platform)
    await app.start()
    try:
        await add(connection, "one", "Tides tides tides rise and fall.")
        await add(connection, "two", "Tides follow the moon, and the moon follows its path, as moons do.")
        await add(connection, "ships", "Vessels wait in the harbour.")
        plain, reply = await search(connection, "tides", mode="words")
        assert ([one.document for one in plain], reply.reranked) == (["one", "two"], "")
        found, reply = await search(connection, "tides", mode="words", rerank=True)
        assert ([one.document for one in found], reply.reranked) == (["two", "one"], "done")
        assert found[0].explain is not None
        assert found[0].explain.rerank == k.SearchRerank("judge", 0.3, 2, 1)
        assert found[0].explain.words is not None
        assert (found[0].explain.words.rank, found[0].score) == (2, pytest.approx(0.3))
        assert (await search(connection, "tides", mode="words", rerank=True))[1].is_cached
        # Where it is away the order is the one before, which is said and not kept.
        endpoint.status = 503
        for _ in range(2):
            found, reply = await search(connection, "tides", mode="words", rerank=True, limit=5)
            assert [one.document for one in found] == ["one", "two"]
            assert (reply.reranked, reply.is_cached) == ("reranker_unavailable", False)
        found, _ = await search(connection, "tides", mode="words", queries=["harbour vessels", "moon"])
        assert [one.document for one in found] == ["two", "one", "ships"]
        ranks = [one.explain.queries for one in found if one.explain is not None]
        assert ranks == [[2, None, 1], [1, None, None], [None, 1, None]]
        with pytest.raises(RequestRefusedError) as refused:
            await search(connection, "tides", queries=[""])
        assert refused.value.param == "queries"
    finally:
        await app.stop()
