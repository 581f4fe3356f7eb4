"""``svc.embed.texts`` on a real broker: any number of texts, shared vectors that only their tenant finds, erasure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from collegium_bus.ask import ask
from collegium_bus.embed import EmbedClient
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import build
from collegium_context.embedding.embedder import CachedEmbedder
from collegium_context.embedding.interface import EmbedderUnavailableError
from collegium_context.embedding.opening import open_embedder
from collegium_context.embedding.shelf import VectorShelf
from collegium_contracts import subjects as s
from collegium_contracts.embedding import EmbedReply, EmbedRequest
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.scope import Scope
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_testing import ModelSimulator, eventually

KEYRING = IdentityKeyring()


def by(simulator: ModelSimulator, dimensions: int = 64) -> EmbeddingsSettings:
    return EmbeddingsSettings(base_url=simulator.base_url, model="embed", dimensions=dimensions)


async def test_other_services_ask_for_any_number_of_texts(platforms: Any) -> None:
    async with ModelSimulator() as simulator:
        platform = await platforms(settings=Settings(embeddings=by(simulator, 3_072)))
        app = build(platform)
        await app.start()
        try:
            client = EmbedClient(platform.connection, KEYRING)
            # 12 kB a vector: an answer holds 64 of them.
            texts = [f"text {number}" for number in range(200)]
            found = await client.embed("acme", texts)
            assert (found.model, found.dimensions, len(found.tokens), sum(found.tokens)) == ("embed", 3_072, 200, 400)
            vectors = np.frombuffer(found.vectors, dtype="<f4").reshape(200, 3_072)
            alone = np.frombuffer((await client.embed("acme", ["text 150"], model="embed")).vectors, dtype="<f4")
            assert np.array_equal(vectors[150], alone)
            assert (await client.embed("acme", [])).tokens == []
            # Long texts go in questions of their own.
            assert len((await client.embed("acme", ["x" * 300_000, "y" * 300_000])).tokens) == 2
            with pytest.raises(RequestRefusedError) as refused:
                await client.embed("acme", ["x" * 600_000])
            assert refused.value.code == "body_too_large"
        finally:
            await app.stop()


async def test_a_question_at_fault_is_refused_by_its_code(platforms: Any) -> None:
    async with ModelSimulator() as simulator:
        platform = await platforms(settings=Settings(embeddings=by(simulator)))
        app = build(platform)
        await app.start()
        try:
            sealed = KEYRING.seal("acme", b'["text"]')
            for question, code in (
                (EmbedRequest(tenant="acme", texts=sealed, model="another"), "unknown_model"),
                (EmbedRequest(tenant="*", texts=sealed), "invalid_value"),
                (EmbedRequest(tenant="acme", texts=KEYRING.seal("acme", b"[]")), "invalid_value"),
                (EmbedRequest(tenant="acme", texts=KEYRING.seal("acme", b"[1]")), "invalid_value"),
                (EmbedRequest(tenant="acme", texts=Envelope("unknown", b"", b"")), "invalid_value"),
            ):
                with pytest.raises(RequestRefusedError) as refused:
                    await ask(platform.connection, s.SVC_EMBED_TEXTS, question, EmbedReply)
                assert refused.value.code == code
        finally:
            await app.stop()


async def test_an_embedder_that_is_down_is_said_to_be(platforms: Any) -> None:
    down = EmbeddingsSettings(base_url="http://127.0.0.1:9/v1", model="embed", dimensions=64)
    platform = await platforms(settings=Settings(embeddings=down))
    app = build(platform)
    await app.start()
    try:
        with pytest.raises(RequestRefusedError) as refused:
            await EmbedClient(platform.connection, KEYRING).embed("acme", ["text"])
        assert refused.value.code == "embedder_unavailable"
    finally:
        await app.stop()


async def test_vectors_are_shared_by_replicas_found_by_their_tenant_and_erased(platforms: Any) -> None:
    async with ModelSimulator() as simulator:
        embedders: list[CachedEmbedder] = []
        shelves: list[VectorShelf] = []
        for _ in range(2):
            platform = await platforms()
            shelves.append(VectorShelf(platform.connection, KEYRING))
            embedders.append(await open_embedder(by(simulator), shelf=shelves[-1]))
        texts = [f"text {number}" for number in range(600)]
        first = await embedders[0].embed(texts, scope=Scope("acme"))

        def asked() -> int:
            return simulator.counts().totals.prompt_tokens

        before = asked()

        async def all_stand() -> bool:
            other = CachedEmbedder(Broken(), memory_bytes=10**7, shelf=shelves[1])
            try:
                return bool(np.array_equal(await other.embed(texts, scope=Scope("acme")), first))
            except EmbedderUnavailableError:
                return False

        assert await eventually(all_stand)
        assert asked() == before
        await embedders[1].embed(texts[:1], scope=Scope("globex"))
        assert asked() > before
        assert await shelves[0].erase("acme") == 600
        again = asked()
        await embedders[1].embed(texts[:2], scope=Scope("acme"))
        assert asked() > again
        for one in embedders:
            await one.close()


class Broken:
    """An engine that computes nothing."""

    model = "embed"
    dimensions = 64
    waiting = 0

    async def compute(self, texts: Any) -> Any:
        raise EmbedderUnavailableError("it computes nothing")

    async def close(self) -> None:
        pass
