"""Documents through the whole of context: taken in, found, replaced, removed, and never half there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import ContextApp, build
from collegium_contracts import knowledge as k
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_runtime import failpoints
from collegium_testing import eventually

HELICOPTER = "Helicopters hover by turning a rotor. " * 3
BREAD = "# Bread\n\nBread rises because yeast makes gas.\n\n# Salt\n\nSalt slows the yeast down."


def sealed(value: Any) -> Envelope:
    return Envelope("identity", b"", value if isinstance(value, bytes) else msgspec.json.encode(value))


class Desk:
    """Asks a running context as the gateway does."""

    def __init__(self, connection: Connection, app: ContextApp) -> None:
        self.connection = connection
        self.app = app

    async def add(self, content: str | bytes, document: str = "", *, tenant: str = "acme", **fields: Any) -> Any:
        meta = k.DocumentMeta(**{name: fields.pop(name) for name in ("title", "tags", "fields") if name in fields})
        content = content.encode() if isinstance(content, str) else content
        question = k.DocumentAdd(tenant=tenant, document=document, content=sealed(content), meta=sealed(meta), **fields)
        return await ask(self.connection, s.SVC_KNOWLEDGE_DOCUMENT_ADD, question, k.DocumentReply)

    async def get(self, document: str, tenant: str = "acme") -> k.DocumentRow:
        question = k.DocumentGet(tenant=tenant, document=document)
        return (await ask(self.connection, s.SVC_KNOWLEDGE_DOCUMENT_GET, question, k.DocumentReply)).document

    async def settled(self, document: str, tenant: str = "acme") -> k.DocumentRow:
        async def is_settled() -> bool:
            return (await self.get(document, tenant)).state != "accepted"

        await eventually(is_settled)
        return await self.get(document, tenant)

    async def indexed(self, content: str | bytes, document: str = "", **fields: Any) -> k.DocumentRow:
        reply = await self.add(content, document, **fields)
        row = await self.settled(reply.document.id, fields.get("tenant", "acme"))
        assert row.state == "indexed", row.error
        return row

    async def delete(self, document: str, tenant: str = "acme") -> None:
        question = k.DocumentDelete(tenant=tenant, document=document)
        await ask(self.connection, s.SVC_KNOWLEDGE_DOCUMENT_DELETE, question, k.DocumentReply)

    async def search(self, query: str, *, tenant: str = "acme", **fields: Any) -> tuple[list[k.SearchResult], Any]:
        question = k.SearchRequest(tenant=tenant, asked=sealed(k.SearchAsked(query=query, **fields)))
        reply = await ask(self.connection, s.SVC_KNOWLEDGE_SEARCH, question, k.SearchReply, timeout_seconds=30)
        return msgspec.json.decode(reply.results.body, type=list[k.SearchResult]), reply

    async def found(self, query: str, **fields: Any) -> list[str]:
        return [result.document for result in (await self.search(query, **fields))[0]]


@pytest.fixture
async def desk(platforms: Any) -> AsyncIterator[Desk]:
    platform = await platforms()
    app = build(platform)
    await app.start()
    yield Desk(platform.connection, app)
    await app.stop()


async def test_a_document_is_found_by_its_words_and_by_its_sense(desk: Desk) -> None:
    await desk.indexed(HELICOPTER, "fly", tags=["air"], title="Rotors")
    row = await desk.indexed(BREAD, "bake", kind="markdown", tags=["food"], fields={"page": 7})
    assert (row.chunks, row.is_served, row.done) == (1, True, 1)
    assert row.stored_bytes > row.bytes
    for query in ("yeast", "how is dough baked"):
        results, reply = await desk.search(query, explain=True)
        assert (results[0].document, reply.mode, reply.degraded) == ("bake", "hybrid", "")
        assert (results[0].title, results[0].tags, results[0].fields) == ("Bread", ["food"], {"page": 7})
        assert results[0].explain is not None
        assert results[0].explain.dense is not None
    assert await desk.found("yeast", mode="words") == ["bake"]
    assert (await desk.found("aircraft with rotary wings", mode="dense"))[0] == "fly"
    assert (await desk.search("yeast", explain=True))[1].is_cached
    assert await desk.found("yeast", tenant="other") == []


async def test_adding_twice_is_nothing_and_replacing_keeps_what_did_not_change(desk: Desk, database_url: str) -> None:
    first = await desk.add(BREAD, kind="markdown")
    assert first.is_new
    await desk.settled(first.document.id)
    again = await desk.add(BREAD, kind="markdown")
    assert (again.is_new, again.document.id, again.document.state) == (False, first.document.id, "indexed")
    elsewhere = await desk.add(BREAD, kind="markdown", project="other")
    assert elsewhere.is_new, "what one project added is not found in another"
    assert elsewhere.document.id != first.document.id
    long = "\n\n".join(f"# Part {n}\n\n" + f"Sentence about topic{n} here. " * 30 for n in range(6))
    await desk.indexed(long, "book", kind="markdown")
    with pytest.raises(RequestRefusedError) as refused:
        await desk.add("something else", "book")
    assert refused.value.code == "already_exists"
    connection = await asyncpg.connect(database_url)
    before = {row["id"] for row in await connection.fetch("SELECT id FROM context.chunks WHERE document = 'book'")}
    await desk.indexed(long.replace("topic3", "salmon"), "book", kind="markdown", replaces=True)
    after = {row["id"] for row in await connection.fetch("SELECT id FROM context.chunks WHERE document = 'book'")}
    await connection.close()
    assert (len(before), len(before & after)) == (6, 5)
    assert (await desk.search("salmon", mode="words"))[0][0].document == "book"
    assert await desk.found("topic3", mode="words") == []


async def test_what_was_removed_is_found_no_more_and_its_points_go(desk: Desk) -> None:
    await desk.indexed(HELICOPTER, "fly")
    version = (await desk.search("rotor"))[1].knowledge_version
    await desk.delete("fly")
    results, reply = await desk.search("rotor")
    assert (results, reply.knowledge_version) == ([], version + 1)
    knowledge = desk.app._knowledge  # pyright: ignore[reportPrivateUsage]
    assert knowledge is not None
    (serving,) = await knowledge.generations.standing()
    await eventually(lambda: _is_empty(desk, serving.collection))
    with pytest.raises(RequestRefusedError) as refused:
        await desk.delete("fly")
    assert refused.value.code == "not_found"


async def _is_empty(desk: Desk, collection: str) -> bool:
    from collegium_contracts.scope import Scope

    vectors = desk.app._vectors  # pyright: ignore[reportPrivateUsage]
    assert vectors is not None
    return await vectors.count(Scope("acme"), collection) == 0


async def test_filters_are_by_tag_field_document_and_project(desk: Desk) -> None:
    for number in range(4):
        await desk.add(
            f"A note on whales, the {number}th of them.",
            f"n{number}",
            tags=["even" if number % 2 == 0 else "odd", "note"],
            fields={"n": number, "kind": "whale", "seen": f"2026-05-0{number + 1}"},
            project="sea" if number < 3 else "land",
        )
    for number in range(4):
        await desk.settled(f"n{number}")

    async def of(**fields: Any) -> set[str]:
        return set(await desk.found("whales", filters=k.SearchFilters(**fields)))

    assert await of() == {"n0", "n1", "n2", "n3"}
    assert await of(tags=["note", "odd"]) == {"n1", "n3"}
    assert await of(not_tags=["odd"]) == {"n0", "n2"}
    assert await of(fields={"n": 2.0}) == {"n2"}
    assert await of(fields={"n": [1, 3], "kind": "whale"}) == {"n1", "n3"}
    assert await of(documents=["n0", "n3"], project="land") == {"n3"}
    assert await of(fields={"n": True}) == set()
    assert await of(to_ms=1) == set()
    assert await of(fields={"n": k.FieldTest(gt=0, lte=2)}) == {"n1", "n2"}
    assert await of(fields={"n": k.FieldTest(gte=1, not_=[2, 7])}) == {"n1", "n3"}
    assert await of(fields={"seen": k.FieldTest(gte="2026-05-02", lt="2026-05-03T00:00:01Z")}) == {"n1", "n2"}
    assert await of(fields={"kind": k.FieldTest(gte=0)}) == set()
    either = [k.SearchFilters(documents=["n0"]), k.SearchFilters(fields={"n": k.FieldTest(gt=2)})]
    assert await of(any_=either) == {"n0", "n3"}
    assert await of(any_=either, not_=k.SearchFilters(project="land")) == {"n0"}
    with pytest.raises(RequestRefusedError) as refused:
        await of(fields={"n": k.FieldTest(gte=2, lt=1)})
    assert (refused.value.code, refused.value.param) == ("invalid_value", "filters")


async def test_a_profile_moves_what_its_user_prefers(desk: Desk) -> None:
    for name in ("plain", "liked"):
        await desk.indexed(f"Notes on tea and its leaves, {name} edition.", name, tags=[name])
    weights = sealed(k.ProfileWeights(tags={"liked": 10.0, "plain": 0.1}))
    question = k.ProfileSet(tenant="acme", user="u1", weights=weights)
    await ask(desk.connection, s.SVC_KNOWLEDGE_PROFILE_SET, question, k.ProfileReply)
    assert (await desk.found("plain tea edition"))[0] == "plain"
    assert (await desk.found("plain tea edition", user="u1"))[0] == "liked"
    assert (await desk.found("plain tea edition", user="u2"))[0] == "plain"
    bad = k.ProfileSet(tenant="acme", user="u1", weights=sealed(k.ProfileWeights(tags={"x": 1000.0})))
    with pytest.raises(RequestRefusedError) as refused:
        await ask(desk.connection, s.SVC_KNOWLEDGE_PROFILE_SET, bad, k.ProfileReply)
    assert refused.value.param == "weights"


async def test_limits_of_an_answer(desk: Desk) -> None:
    for number in range(6):
        await desk.add(f"Report {number} about tides and the moon. " * (number + 1), f"r{number}")
    for number in range(6):
        await desk.settled(f"r{number}")
    results, reply = await desk.search("tides moon", limit=3)
    assert len(results) == 3
    assert [one.score for one in results] == sorted((one.score for one in results), reverse=True)
    budget = reply.tokens // 2
    assert (await desk.search("tides moon", budget_tokens=budget))[1].tokens <= budget
    assert all(one.score >= 0.9 for one in (await desk.search("tides moon", threshold=0.9))[0])
    spread = await desk.found("tides moon", diversity=0.9, limit=6)
    assert sorted(spread) == [f"r{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"", "text", "document_empty"),
        (b" \n\t ", "markdown", "document_empty"),
        (b"<script>steal()</script>", "html", "document_empty"),
        (b"MZ\x00\x01\x02binary", "text", "document_undecodable"),
        (bytes(range(1, 32)) * 20, "text", "document_undecodable"),
        (b"not a pdf", "pdf", "document_undecodable"),
        (b"<div>" * 5_000 + b"x", "html", "document_too_deep"),
    ],
)
async def test_a_document_that_cannot_be_read_is_refused_with_its_name(
    desk: Desk, content: bytes, kind: str, code: str
) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        await desk.add(content, "bad-one", kind=kind)
    assert (refused.value.code, "bad-one" in refused.value.message) == (code, True)
    with pytest.raises(RequestRefusedError):
        await desk.get("bad-one")


async def test_a_large_document_that_cannot_be_read_fails_and_the_older_version_stays(desk: Desk) -> None:
    await desk.indexed(HELICOPTER, "fly")
    reply = await desk.add(b"%PDF-1.7\n" + b"garbage " * 2_000, "fly", kind="pdf", replaces=True)
    assert reply.document.state == "accepted"
    row = await desk.settled("fly")
    assert row.error is not None
    assert (row.state, row.error.code, row.is_served) == ("failed", "document_undecodable", True)
    assert "fly" in row.error.message
    assert (await desk.found("rotor"))[0] == "fly"


async def test_many_documents_at_once_are_all_there(desk: Desk) -> None:
    async def one(number: int) -> str:
        return (await desk.add(f"Sentence number {number} speaks of item{number}.")).document.id

    ids = await asyncio.gather(*map(one, range(200)))
    assert len(set(ids)) == 200

    async def all_indexed() -> bool:
        question = k.DocumentList(tenant="acme", state="indexed", limit=200)
        page = await ask(desk.connection, s.SVC_KNOWLEDGE_DOCUMENT_LIST, question, k.DocumentsReply)
        return len(page.documents) == 200

    await eventually(all_indexed)
    assert (await desk.found("item137", mode="words")) == [ids[137]]


@pytest.mark.parametrize("place", ["context.after-points", "context.before-indexed", "context.before-switch"])
async def test_what_dies_on_the_way_is_taken_up_and_never_half_found(desk: Desk, place: str) -> None:
    await desk.indexed("Old text about harbours.\n\n" * 2, "port")
    disarm = failpoints.arm(f"{place}=error:1")
    try:
        text = "\n\n".join(f"# Part {n}\n\n" + f"New text about gulls{n}. " * 30 for n in range(8))
        await desk.add(text, "port", kind="markdown", replaces=True)

        async def is_new() -> bool:
            results, _ = await desk.search("harbours gulls0 gulls7", mode="words", limit=50)
            whole = len([one for one in results if "gulls" in one.text])
            assert whole in (0, len(results)), "old and new chunks are never found together"
            return whole > 0

        await eventually(is_new)
    finally:
        disarm()
    row = await desk.settled("port")
    assert (row.state, row.chunks, row.error) == ("indexed", 8, None)
    assert await desk.found("harbours", mode="words") == []
