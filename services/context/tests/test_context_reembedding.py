"""Another embedder: documents are embedded anew while the older index answers, and nothing is lost or found half."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from aiohttp import web
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import ContextApp, build
from collegium_context.documents import generations, reembedding
from collegium_context.documents.generations import Begun, Generation, GenerationStore, begun
from collegium_context.documents.indexing_store import IndexingStore, PointsLostError, Put
from collegium_context.embedding import endpoint as engines
from collegium_context.migrations import MIGRATIONS
from collegium_contracts import knowledge as k
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_runtime import failpoints
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings, PreviousEmbedder
from collegium_store import migrate, open_pool
from collegium_telemetry import names
from collegium_testing import eventually

HELD = "held back"


class Endpoint:
    """Embeds by the letters of a text, as long as is asked for; ``gate`` shut: texts with HELD in them wait."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.texts: list[str] = []
        self.url = ""
        self.is_down = False

    async def embed(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if self.is_down:
            return web.Response(status=503)
        if any(HELD in text for text in asked["input"]):
            await self.gate.wait()
        self.texts += asked["input"]
        rows: Any = np.zeros((len(asked["input"]), asked.get("dimensions", 8)))
        for row, text in zip(rows, asked["input"], strict=True):
            for letter in text.lower():
                row[ord(letter) % len(row)] += 1
        return web.json_response({"data": [{"embedding": list(row)} for row in rows + 0.01]})


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/embeddings", made.embed)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    made.gate.set()
    await runner.cleanup()


def sealed(value: Any) -> Envelope:
    return Envelope("identity", b"", value if isinstance(value, bytes) else msgspec.json.encode(value))


class Running:
    """A context with an embedder, asked as the gateway asks."""

    def __init__(self, platform: Any, app: ContextApp) -> None:
        self.platform = platform
        self.app = app

    async def add(self, document: str, text: str) -> None:
        question = k.DocumentAdd(
            tenant="acme",
            document=document,
            content=sealed(text.encode()),
            meta=sealed(k.DocumentMeta(title=f"About {document}", fields={"n": len(document)})),
            replaces=True,
        )
        connection = self.platform.connection
        await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_ADD, question, k.DocumentReply)

        async def is_indexed() -> bool:
            asked = k.DocumentGet(tenant="acme", document=document)
            row = (await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_GET, asked, k.DocumentReply)).document
            return row.state == "indexed"

        await eventually(is_indexed)

    async def delete(self, document: str) -> None:
        question = k.DocumentDelete(tenant="acme", document=document)
        await ask(self.platform.connection, s.SVC_KNOWLEDGE_DOCUMENT_DELETE, question, k.DocumentReply)

    async def search(self, query: str, **fields: Any) -> tuple[list[str], k.SearchReply]:
        question = k.SearchRequest(tenant="acme", asked=sealed(k.SearchAsked(query=query, **fields)))
        reply = await ask(self.platform.connection, s.SVC_KNOWLEDGE_SEARCH, question, k.SearchReply, timeout_seconds=30)
        results = msgspec.json.decode(reply.results.body, type=list[k.SearchResult])
        return [one.document for one in results], reply

    async def remember(self, text: str) -> None:
        content = sealed(q.MemoryContent(text=text))
        question = q.MemoryAdd(tenant="acme", path="web/ada", content=content)
        await ask(self.platform.connection, s.SVC_MEMORY_ADD, question, q.MemoryShown)

    async def recalled(self, text: str) -> list[str]:
        question = q.MemoryRecall(tenant="acme", path="web/ada", question=sealed(text.encode()))
        reply = await ask(self.platform.connection, s.SVC_MEMORY_RECALL, question, q.MemoryShown)
        return [one["text"] for one in msgspec.json.decode(reply.content.body)["data"]]

    async def generations(self) -> list[Generation]:
        assert self.app._knowledge is not None  # pyright: ignore[reportPrivateUsage]
        return await self.app._knowledge.generations.standing()  # pyright: ignore[reportPrivateUsage]

    def left(self) -> float:
        lines = self.platform.metrics.render().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(names.METRIC_REINDEX_LEFT))

    async def collections(self) -> list[str]:
        vectors = self.app._vectors  # pyright: ignore[reportPrivateUsage]
        assert vectors is not None
        return await vectors.names()


@pytest.fixture
def context(platforms: Any, endpoint: Endpoint) -> Any:
    @asynccontextmanager
    async def running(model: str, dimensions: int | None, previous: int | None = None) -> AsyncIterator[Running]:
        before = PreviousEmbedder(base_url=endpoint.url, model="one", dimensions=previous) if previous else None
        embeddings = EmbeddingsSettings(
            base_url=endpoint.url, model=model, dimensions=dimensions, previous=before, timeout_seconds=120
        )
        platform = await platforms(settings=Settings(embeddings=embeddings))
        app = build(platform)
        await app.start()
        try:
            yield Running(platform, app)
        finally:
            await app.stop()

    return running


ONE, OTHER = Generation("a", "one", 8), Generation("", "two", 8)


@pytest.mark.parametrize(
    ("standing", "wanted", "expected"),
    [
        ([], OTHER, Begun([], OTHER)),
        ([ONE], Generation("", "one", 8), Begun([], None)),
        ([ONE], OTHER, Begun([], Generation("", "two", 8, state="building"))),
        ([ONE], Generation("", "one", 9), Begun([], Generation("", "one", 9, state="building"))),
        ([ONE], Generation("", "one", 8, 99), Begun([], Generation("", "one", 8, 99, "building"))),
        ([ONE, Generation("b", "two", 8, state="building")], OTHER, Begun([], None)),
        ([ONE, Generation("b", "two", 8, state="building")], Generation("", "one", 8), Begun(["b"], None)),
        (
            [ONE, Generation("b", "two", 8, state="building")],
            Generation("", "two", 9),
            Begun(["b"], Generation("", "two", 9, state="building")),
        ),
    ],
)
def test_what_another_embedder_needs(standing: list[Generation], wanted: Generation, expected: Begun) -> None:
    assert begun(standing, wanted) == expected


@pytest.mark.timeout(300)
async def test_another_embedder_takes_over_by_name_and_the_older_answers_meanwhile(
    context: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(reembedding, "AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(generations, "RETIRED_SECONDS", 0)
    async with context("one", 8) as first:
        for name in ("rotor", "yeast", "whale"):
            await first.add(name, f"A note on {name}, {HELD} for now.")
        assert (await first.search("yeast"))[1].mode == "hybrid"
        (older,) = await first.generations()
        await first.remember("Ada prefers trains.")
    endpoint.gate.clear()
    # Its model is the same; only the length differs.
    async with context("one", 16) as second:
        serving, building = await second.generations()
        assert (serving, building.state, building.dimensions) == (older, "building", 16)
        assert second.left() == 3
        found, reply = await second.search("yeast")
        assert (found, reply.mode, reply.degraded) == (["yeast"], "words", "reindexing")
        with pytest.raises(RequestRefusedError) as refused:
            await second.search("yeast", mode="dense")
        assert (refused.value.code, refused.value.param) == ("embedder_unavailable", "mode")
        await second.add("heron", "Herons stand in the water.")
        assert (await second.search("herons"))[0] == ["heron"]
        await second.delete("whale")
        assert (await second.search("whale"))[0] == []
        version = (await second.search("herons"))[1].knowledge_version
        # Whoever dies in the transaction that switches is followed by one that switches.
        disarm = failpoints.arm("context.before-generation=error:1")
        endpoint.gate.set()

        async def switched() -> bool:
            return [one.collection for one in await second.generations()] == [building.collection]

        await eventually(switched)
        disarm()
        found, reply = await second.search("yeast", mode="dense", explain=True)
        assert (sorted(found), reply.degraded) == (["heron", "rotor", "yeast"], "")
        assert reply.knowledge_version > version
        ranges = k.SearchFilters(fields={"n": k.FieldTest(gte=5)})
        assert sorted((await second.search("note", filters=ranges))[0]) == ["heron", "rotor", "yeast"]
        assert second.left() == 0

        async def dropped() -> bool:
            return older.collection not in await second.collections()

        await eventually(dropped)
        await second.delete("rotor")
        assert "rotor" not in (await second.search("rotor"))[0]
        assert await second.recalled("which trains does Ada like") == ["Ada prefers trains."]
        answers = [name for name in await second.collections() if name.startswith("answers-")]
        assert len(answers) == 1, "answers kept for another embedder's vectors are dropped"


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_the_embedder_of_before_keeps_both_signals_and_a_kill_costs_little(
    context: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "DOCUMENTS_AT_ONCE", 1)
    async with context("one", 8) as first:
        for number in range(6):
            await first.add(f"d{number}", f"Document number {number} of six.")
    endpoint.texts.clear()
    disarm = failpoints.arm("context.after-anew=error:3")
    monkeypatch.setattr(reembedding, "AGAIN_SECONDS", 600.0)
    try:
        async with context("two", 8, previous=8) as second:

            async def stuck() -> bool:
                return len([text for text in endpoint.texts if "of six" in text]) >= 3

            await eventually(stuck)
            found, reply = await second.search("number 4")
            assert (len(found), reply.mode, reply.degraded) == (6, "hybrid", "")
            assert len(await second.generations()) == 2
            await second.add("d5", "Document number 5, replaced.")
            assert (await second.search("replaced", mode="words"))[0] == ["d5"]
    finally:
        disarm()
    endpoint.texts.clear()
    async with context("two", 8) as third:

        async def switched() -> bool:
            return len(await third.generations()) == 1

        await eventually(switched)
        anew = [text for text in endpoint.texts if "of six" in text]
        assert len(anew) == 3, "what was embedded before the kill is not embedded again"
        found, reply = await third.search("number 4", mode="dense")
        assert (sorted(found), reply.degraded) == ([f"d{number}" for number in range(6)], "")
        assert (await third.search("replaced"))[0][0] == "d5"


@pytest.mark.timeout(300)
async def test_context_starts_without_its_embedders_endpoint_and_goes_on_when_it_answers(
    context: Any, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(engines, "TRIES", 1)
    async with context("one", 8) as first:
        await first.add("rotor", "A rotor turns.")
    endpoint.is_down = True
    async with context("one", None) as second:
        found, reply = await second.search("rotor")
        assert (found, reply.mode, reply.degraded) == (["rotor"], "words", "embedder_unavailable")
        endpoint.is_down = False
        await second.add("yeast", "Yeast makes gas.")

        async def embedded() -> bool:
            # After a failure questions pause for a moment before they are embedded again.
            try:
                found, reply = await second.search("gas", mode="dense")
            except RequestRefusedError:
                return False
            return (sorted(found), reply.degraded) == (["rotor", "yeast"], "")

        await eventually(embedded)
        assert len(await second.generations()) == 1


async def test_what_was_indexed_before_generations_were_kept_goes_on_to_be_found(database_url: str) -> None:
    await migrate(database_url, [MIGRATIONS])
    pool = await open_pool(database_url, application_name="test")
    try:
        await pool.execute(
            """
            INSERT INTO context.documents (tenant, id, project, kind, state, fingerprint, served,
                meta_key_id, meta_nonce, meta, source_bytes, model, created_at, updated_at, due_at)
            VALUES ('acme', 'old', 'default', 'text', 'indexed', '', 1, '', '', '', 0, 'one', now(), now(), now())
            """
        )
        store = GenerationStore(pool)
        begun_at_once = await asyncio.gather(*(store.begin("one", 8) for _ in range(3)))
        serving, building = await store.standing()
        assert (serving.model, serving.dimensions, serving.state) == ("one", 0, "serving")
        assert all(one == building for one in begun_at_once), "replicas that begin at once agree"
        assert await store.count(serving.collection) == (1, 1)
        (lacking,) = await store.lacking(building.collection, ("", ""), 10)
        assert not await store.switch(building.collection), "a document lacks"
        assert await store.lease(building.collection, "a")
        assert not await store.lease(building.collection, "b"), "one process builds at a time"
        assert await store.mark(building.collection, [lacking], []) == {("acme", "old")}
        assert await store.switch(building.collection)
        assert [one.collection for one in await store.standing()] == [building.collection]
        with pytest.raises(PointsLostError):
            # What was begun before the switch would not be found after it.
            await IndexingStore(pool).switch([], model="one", put=[Put(serving.collection, [], is_whole=True)])
    finally:
        await pool.close()
