"""The two engines: the bundled one in its process, and an endpoint; what their faults become."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from collegium_context.embedding import EmbedderUnavailableError, bundled
from collegium_context.embedding.endpoint import EndpointEngine
from collegium_context.embedding.minilm import Batches
from collegium_context.embedding.opening import open_embedder
from collegium_context.embedding.process import EmbedderProcess
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_settings.secret import Secret
from collegium_testing import ModelSimulator, eventually
from collegium_testing.simulator import Behaviour, Rule


async def test_the_bundled_model_knows_what_texts_mean_and_outlives_its_process():
    process = EmbedderProcess(1)
    batches = Batches(process, 1)
    try:
        found = await batches.compute(["A cat sits on the mat.", "The cat is on a mat.", "Stocks fell.", "x " * 5_000])
        unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
        assert unit[0] @ unit[1] > 0.8
        assert unit[0] @ unit[2] < 0.3
        assert found.tokens[0] == 9
        assert found.tokens[3] == 256
        # Whom a text is embedded with does not show in its vector.
        alone = await batches.compute(["Stocks fell."])
        assert np.allclose(alone.vectors[0], found.vectors[2], atol=1e-4)

        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await eventually(lambda: process.pid is None)
        again = await batches.compute(["Stocks fell."])
        assert np.array_equal(again.vectors, alone.vectors)
        pid = process.pid
        waits = asyncio.create_task(batches.compute(["y " * 5_000] * 40))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EmbedderUnavailableError, match="ended"):
            await waits
    finally:
        await batches.close()
    assert process.pid is None


def test_a_file_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    wrong = tmp_path / "model.onnx"
    wrong.write_bytes(b"something else")

    class File:
        def as_posix(self) -> str:
            return "package/model.onnx"

        def locate(self) -> Path:
            return wrong

    monkeypatch.setattr(bundled, "files", lambda _package: [File()])
    with pytest.raises(EmbedderUnavailableError, match="pinned"):
        bundled.pinned_file("package", "model.onnx", "0" * 64)
    monkeypatch.setattr(bundled, "files", lambda _package: [])
    with pytest.raises(EmbedderUnavailableError, match="not installed"):
        bundled.pinned_file("package", "model.onnx", "0" * 64)
    monkeypatch.undo()
    with pytest.raises(EmbedderUnavailableError, match="not installed"):
        bundled.pinned_file("no-package-of-this-name", "model.onnx", "0" * 64)


def settings(simulator: ModelSimulator, **more: object) -> EmbeddingsSettings:
    return EmbeddingsSettings(base_url=simulator.base_url, model="embed", api_key=Secret("k" * 8), **more)  # type: ignore[arg-type]


@pytest.fixture
async def simulator() -> AsyncIterator[ModelSimulator]:
    async with ModelSimulator() as running:
        yield running


async def test_an_endpoint_answers_with_its_own_vectors_and_count(simulator: ModelSimulator):
    embedder = await open_embedder(settings(simulator))
    try:
        length = embedder.dimensions
        found = await embedder.embed_counted([f"text {number}" for number in range(300)])
        assert found.vectors.shape == (300, length)
        assert sum(found.tokens) == 600
        alone = await embedder.embed(["text 170"])
        assert np.array_equal(found.vectors[170:171], alone)
    finally:
        await embedder.close()
    # One to learn the length, three batches of at most 128, one alone.
    assert simulator.counts().totals.started == 5


async def test_a_failure_that_passes_is_tried_again_and_another_is_not(simulator: ModelSimulator):
    engine = EndpointEngine(settings(simulator, dimensions=16))
    try:
        simulator.script(Rule(Behaviour(status=503), times=1), Rule(Behaviour()))
        assert (await engine.compute(["a"])).vectors.shape == (1, 16)
        assert simulator.counts().totals.started == 2
        simulator.script(Rule("unauthorized"))
        with pytest.raises(EmbedderUnavailableError, match="401"):
            await engine.compute(["a"])
        assert simulator.counts().totals.started == 3
        simulator.script(Rule(Behaviour(status=500)))
        with pytest.raises(EmbedderUnavailableError, match="500"):
            await engine.compute(["a"])
        assert simulator.counts().totals.started == 6
    finally:
        await engine.close()


async def test_an_endpoint_that_is_down_is_said_to_be(simulator: ModelSimulator):
    down = EmbeddingsSettings(base_url="http://127.0.0.1:9/v1", model="embed")
    embedder = await open_embedder(down)
    try:
        with pytest.raises(EmbedderUnavailableError):
            await embedder.embed(["a"])
        with pytest.raises(EmbedderUnavailableError):
            assert embedder.dimensions
    finally:
        await embedder.close()


async def test_garbage_and_another_length_are_refused(simulator: ModelSimulator):
    engine = EndpointEngine(settings(simulator))
    try:
        simulator.script(Rule("garbage"))
        with pytest.raises(EmbedderUnavailableError, match="no embeddings"):
            await engine.compute(["a"])
        simulator.script()
        await engine.compute(["a"])
        engine._dimensions = 5
        with pytest.raises(EmbedderUnavailableError, match="another name"):
            await engine.compute(["a"])
    finally:
        await engine.close()
