"""Embeddings through the whole platform, as the OpenAI SDK sees them, by the bundled embedder."""

from __future__ import annotations

import time
import uuid
from typing import Any

import numpy as np
import openai
import pytest
from collegium_testing import eventually
from openai import AsyncOpenAI

from tests.conftest import Stage

PATH = "/v1/embeddings"
MODEL = "all-minilm-l6-v2"
TEXTS = ["A cat sits on the mat.", "The cat is sitting on a mat.", "Stock prices fell sharply on Monday."]


def client(stage: Stage) -> AsyncOpenAI:
    # The embedder's process starts with the first text.
    return AsyncOpenAI(base_url=f"{stage.http}/v1", api_key=stage.key, max_retries=0, timeout=60)


async def test_texts_are_embedded_as_the_sdk_asks_for_them(stage: Stage):
    async with client(stage) as sdk:
        raw = await sdk.embeddings.with_raw_response.create(model=MODEL, input=TEXTS, user="somebody")
        plain = await sdk.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float")
        by_router = await sdk.embeddings.create(model="auto", input=TEXTS[0], dimensions=384)
    answer = raw.parse()
    assert [one.index for one in answer.data] == [0, 1, 2]
    vectors = np.array([one.embedding for one in answer.data])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alike, unlike = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert alike > 0.9
    assert unlike < 0.3
    assert np.allclose(plain.data[0].embedding, vectors[0], atol=1e-6)
    assert np.allclose(by_router.data[0].embedding, vectors[0], atol=1e-6)
    assert (answer.model, by_router.model) == (MODEL, MODEL)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 20
    about: dict[str, Any] = answer.model_extra["collegium"]
    assert about["cost_usd"] == "0"
    assert raw.headers["x-collegium-task-id"] == about["task_id"]
    assert raw.headers["x-collegium-model"] == MODEL
    assert raw.headers["x-request-id"]
    assert stage.simulator.counts().totals.started == 0


async def test_the_embedder_is_a_model_and_its_tokens_are_usage(stage: Stage):
    tag = f"embeds{time.time_ns()}"
    async with client(stage) as sdk:
        listed = {model.id: model for model in (await sdk.models.list()).data}
        assert listed[MODEL].model_extra["collegium"]["kind"] == "embedding"
        body = {"collegium": {"tags": {tag: "yes"}}}
        answer = await sdk.embeddings.create(model=MODEL, input="How much is this?", extra_body=body)

    async def row() -> dict[str, Any] | None:
        async with stage.session() as session, session.get("/v1/usage?group_by=model,tag") as response:
            rows = (await response.json())["data"]
        return next((one for one in rows if one["tag"] == f"{tag}=yes"), None)

    counted = await eventually(row)
    assert (counted["model"], counted["requests"]) == (MODEL, 1)
    assert (counted["input_tokens"], counted["output_tokens"]) == (answer.usage.prompt_tokens, 0)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": [[1, 2, 3]]}, "unsupported_option", "input"),
        ({"input": [1, 2, 3]}, "unsupported_option", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": {"a": 1}}, "invalid_value", "input"),
        ({"input": ["a"] * 2049}, "invalid_value", "input"),
        ({}, "invalid_value", "input"),
        ({"input": "a", "dimensions": 256}, "unsupported_option", "dimensions"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "invalid_value", "encoding_format"),
        ({"input": "a", "model": "sim"}, "unknown_model", "model"),
        ({"input": "a", "collegium": {"plan": "panel"}}, "invalid_value", "collegium"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(stage: Stage, body: dict[str, Any], code: str, param: str | None):
    async with stage.session() as session, session.post(PATH, json={"model": MODEL, **body}) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, code, param)


async def test_an_embedder_does_not_chat(stage: Stage):
    async with client(stage) as sdk:
        with pytest.raises(openai.BadRequestError) as refused:
            await sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
        assert refused.value.code == "unknown_model"
        answer = await sdk.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hi"}])
    assert answer.model == "sim"


async def test_a_key_is_needed(stage: Stage):
    key = "sk-clg-nobody00-" + "0" * 48
    async with stage.session(key) as session, session.post(PATH, json={"input": "a"}) as response:
        assert response.status == 401


async def test_a_keyed_request_is_one_task(stage: Stage):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"model": MODEL, "input": TEXTS, "encoding_format": "base64"}
    async with stage.session() as session:
        async with session.post(PATH, json=body, headers=headers) as response:
            first = await response.json()
            assert response.status == 200, first
        async with session.post(PATH, json=body, headers=headers) as response:
            second = await response.json()
            assert response.headers["idempotent-replayed"] == "true"
        async with session.post(PATH, json={**body, "input": "other"}, headers=headers) as response:
            assert response.status == 409
        async with session.get(f"/v1/tasks/{first['collegium']['task_id']}") as response:
            task = await response.json()
    assert first["data"] == second["data"]
    assert first["collegium"]["task_id"] == second["collegium"]["task_id"]
    assert (task["state"], task["usage"]["input_tokens"]) == ("completed", first["usage"]["prompt_tokens"])


async def test_many_texts_go_in_one_request(stage: Stage):
    texts = [f"number {number}" for number in range(300)]
    async with client(stage) as sdk:
        answer = await sdk.embeddings.create(model=MODEL, input=texts)
        alone = await sdk.embeddings.create(model=MODEL, input=texts[170])
    assert len(answer.data) == 300
    assert np.allclose(answer.data[170].embedding, alone.data[0].embedding, atol=1e-3)
