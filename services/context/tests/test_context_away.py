"""What context does while its embedder's endpoint, or the folder of its vector store, cannot be had from the start."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import ContextApp, build
from collegium_context.vectors.embedded import child, scratch
from collegium_context.vectors.opening import FOLDER
from collegium_contracts import knowledge as k
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.likeness import LikenessLook, LikenessLooked
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from structlog.testing import capture_logs


def sealed(value: Any) -> Envelope:
    return Envelope("identity", b"", value if isinstance(value, bytes) else msgspec.json.encode(value))


@asynccontextmanager
async def running(platform: Any) -> AsyncIterator[ContextApp]:
    app = build(platform)
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def add(connection: Connection, text: str) -> k.DocumentRow:
    question = k.DocumentAdd(tenant="acme", content=sealed(text.encode()), meta=sealed(k.DocumentMeta()))
    return (await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_ADD, question, k.DocumentReply)).document


async def search(connection: Connection, query: str, **more: Any) -> k.SearchReply:
    asked = k.SearchRequest(tenant="acme", asked=sealed(k.SearchAsked(query=query, **more)))
    return await ask(connection, s.SVC_KNOWLEDGE_SEARCH, asked, k.SearchReply, timeout_seconds=20)


async def look(connection: Connection) -> LikenessLooked:
    prompt = sealed([{"role": "user", "content": "How do I bleed a radiator?"}])
    question = LikenessLook(tenant="acme", project="default", setting=b"s" * 32, prompt=prompt)
    return await ask(connection, s.SVC_LIKENESS_LOOK, question, LikenessLooked, timeout_seconds=20)


async def remember(connection: Connection, text: str) -> Any:
    content = sealed(q.MemoryContent(text=text))
    question = q.MemoryAdd(tenant="acme", path="web", content=content)
    return msgspec.json.decode((await ask(connection, s.SVC_MEMORY_ADD, question, q.MemoryShown)).content.body)


async def recalled(connection: Connection, text: str) -> Any:
    question = q.MemoryRecall(tenant="acme", path="web", question=sealed(text.encode()))
    reply = await ask(connection, s.SVC_MEMORY_RECALL, question, q.MemoryShown, timeout_seconds=20)
    return msgspec.json.decode(reply.content.body)


async def is_indexed(connection: Connection, document: str) -> bool:
    question = k.DocumentGet(tenant="acme", document=document)
    return (await ask(connection, s.SVC_KNOWLEDGE_DOCUMENT_GET, question, k.DocumentReply)).document.state == "indexed"


async def test_an_endpoint_that_is_away_at_the_start_and_has_said_no_length_is_waited_for(platforms: Any):
    async with ModelSimulator() as simulator:
        simulator.script(Rule(Behaviour(status=503)))
        settings = Settings(embeddings=EmbeddingsSettings(base_url=simulator.base_url, model="embed"))
        platform = await platforms(settings=settings)
        connection = platform.connection
        async with running(platform) as app:
            assert all(app.readiness().values())
            document = await add(connection, "Yeast makes bread rise.")
            assert (await remember(connection, "Ada bakes bread."))["indexed"] is False
            found = await search(connection, "bread")
            assert (found.mode, found.degraded) == ("words", "embedder_unavailable")
            shown = await recalled(connection, "who bakes bread?")
            assert [one["text"] for one in shown["data"]] == ["Ada bakes bread."]
            assert shown["degraded"]
            with pytest.raises(RequestRefusedError) as refused:
                await look(connection)
            assert refused.value.code == "embedder_unavailable"

            simulator.script()
            await eventually(lambda: is_indexed(connection, document.id))

            async def is_whole() -> bool:
                return not (await search(connection, "bread")).degraded

            await eventually(is_whole)
            assert (await search(connection, "bread")).found == 1

            async def is_asked() -> bool:
                # A moment after a failure nobody waits for the endpoint.
                with contextlib.suppress(RequestRefusedError):
                    return (await look(connection)).decision == "call"
                return False

            await eventually(is_asked)

            async def is_embedded() -> bool:
                return not (await recalled(connection, "bakes bread"))["degraded"]

            await eventually(is_embedded)


async def test_a_folder_that_another_process_owns_is_refused_and_taken_over_when_it_is_free(
    platforms: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child, "START_SECONDS", 1.0)
    platform = await platforms()
    connection = platform.connection
    folder = Path(platform.data_dir) / FOLDER
    folder.mkdir()
    owned = os.open(folder / scratch.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(owned, fcntl.LOCK_EX)
    try:
        async with AsyncExitStack() as stack:
            with capture_logs() as logged:
                app = await stack.enter_async_context(running(platform))
                assert app.readiness() == {"folding": True, "answering": True, "vectors": False}
                await eventually(
                    lambda: any("another process owns it" in str(one) for one in logged), deadline_seconds=60
                )
            document = await add(connection, "Yeast makes bread rise.")
            assert document.state == "accepted"
            made = await remember(connection, "Ada bakes bread.")
            assert made["indexed"] is False
            with pytest.raises(RequestRefusedError, match="cannot be searched now") as refused:
                await search(connection, "bread", mode="words")
            assert refused.value.code == "vector_store_unavailable"
            with pytest.raises(RequestRefusedError) as refused:
                await look(connection)
            assert refused.value.code == "vector_store_unavailable"
            shown = await recalled(connection, "who bakes bread?")
            assert (shown["degraded"], [one["id"] for one in shown["data"]]) == (
                ["vector_store_unavailable"],
                [made["id"]],
            )
            assert [one.name for one in folder.iterdir()] == [scratch.LOCK], "nothing was written beside the owner"

            os.close(owned)
            owned = -1
            await eventually(lambda: app.readiness()["vectors"])
            await eventually(lambda: is_indexed(connection, document.id))
            assert (await search(connection, "bread")).found == 1
            assert (await look(connection)).decision == "call"
    finally:
        if owned >= 0:
            os.close(owned)
