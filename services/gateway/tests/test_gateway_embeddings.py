"""What a request for embeddings may hold, what is held for it, and how vectors are shown."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from collegium_contracts.embedding import EmbeddingOutput, decode_texts
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.money import Price
from collegium_contracts.state import Breaker, ModelRecord
from collegium_contracts.worstcase import candidates, counted_tokens, worst_picos
from collegium_gateway.admission.embedding import away_until_ms, decode_embedding, embedding_submission, shown
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal


def record(name: str, **fields: Any) -> ModelRecord:
    values: dict[str, Any] = {
        "name": name,
        "rank": "student",
        "pool": "general",
        "price": Price(input_picos=10),
        "charge": Price(input_picos=20, call_picos=5),
        "max_output_tokens": 0,
        "context_tokens": 256,
        "kind": "embedding",
        "dimensions": 384,
    }
    return ModelRecord(**(values | fields))


EMBEDDER = record("embedder")
CHAT = record("chat", kind="chat", context_tokens=100_000, max_output_tokens=100)


def principal(*models: str) -> Principal:
    return Principal("acme", "default", "k", frozenset({"chat"}), "pro", "member", models)


def submitted(*models: ModelRecord, who: Principal | None = None, **fields: Any):
    request = decode_embedding.decode(msgspec.json.encode({"input": "text", **fields}))
    return embedding_submission(
        request, who or principal(), models or (EMBEDDER, CHAT), IdentityKeyring(), task_id="t", reply="r", now_ms=1_000
    )


@pytest.mark.parametrize(
    ("model", "open_until", "away_until"),
    [
        ("embedder", {}, 0),
        ("embedder", {"embedder": 5_000}, 5_000),
        ("embedder", {"embedder": 999}, 0),
        ("embedder", {"chat": 5_000}, 0),
        ("auto", {"embedder": 5_000}, 0),
        ("auto", {"embedder": 5_000, "second": 3_000}, 3_000),
        ("auto", {"embedder": 5_000, "second": 3_000, "chat": 9_000}, 3_000),
        ("gone", {"embedder": 5_000}, 0),
    ],
)
def test_an_embedder_is_away_while_all_breakers_concerned_are_open(
    model: str, open_until: dict[str, int], away_until: int
):
    models = [EMBEDDER, record("second"), record("disabled", enabled=False), CHAT]
    breakers = {name: Breaker(model=name, open_until_ms=until) for name, until in open_until.items()}
    task = msgspec.structs.replace(submitted().task, model=model)
    assert away_until_ms(task, models, breakers, now_ms=1_000) == away_until


def test_a_request_becomes_a_task_of_its_kind():
    made = submitted(input=["one", "two"], model="embedder", dimensions=384, collegium={"deadline_seconds": 2})
    assert (made.task.kind, made.task.plan, made.task.model, made.task.deadline_ms) == (
        "embedding",
        "single",
        "embedder",
        3_000,
    )
    assert decode_texts(made.prompt.body) == ["one", "two"]
    assert made.sampling.dimensions == 384


def test_the_hold_covers_every_text_and_chats_are_not_candidates():
    # 100 texts of 256 tokens are more than one text's context.
    made = submitted(input=["x" * 1_000] * 100)
    assert [model.name for model in candidates(made, [EMBEDDER, CHAT])] == ["embedder"]
    assert worst_picos(made, [EMBEDDER, CHAT]) >= 100 * 256 * 20 + 5
    assert counted_tokens(made, [EMBEDDER, CHAT]) == -(-made.prompt_bytes // 4)


def test_short_texts_cannot_come_to_more_tokens_than_are_held():
    made = submitted(input=["a"] * 2_000)
    assert worst_picos(made, [EMBEDDER]) >= 3 * 2_000 * 20


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "chat"}, "unknown_model"),
        ({"model": "nobody"}, "unknown_model"),
        ({"input": ""}, "invalid_value"),
        ({"input": None}, "invalid_value"),
        ({"input": [[1]]}, "unsupported_option"),
        ({"input": [True]}, "unsupported_option"),
        ({"collegium": {"deadline_seconds": 0}}, "deadline_in_past"),
        ({"collegium": {"tags": {"a": "b" * 200}}}, "invalid_value"),
        ({"dimensions": 100_000}, "invalid_value"),
    ],
)
def test_what_is_refused_is_refused_by_its_code(fields: dict[str, Any], code: str):
    with pytest.raises(ApiError) as refused:
        submitted(**fields)
    assert refused.value.code == code


def test_a_key_of_certain_models_embeds_with_those_alone():
    with pytest.raises(ApiError) as refused:
        submitted(who=principal("chat"), model="embedder")
    assert refused.value.code == "model_not_allowed"
    with pytest.raises(ApiError) as refused:
        submitted(who=principal("chat"), model="auto")
    assert refused.value.code == "no_eligible_model"
    assert submitted(who=principal("embedder"), model="auto").task.models == ["embedder"]


def test_dimensions_are_cut_where_the_model_can():
    fixed = record("embedder", has_fixed_dimensions=True)
    with pytest.raises(ApiError) as refused:
        submitted(fixed, dimensions=100)
    assert (refused.value.code, refused.value.param) == ("unsupported_option", "dimensions")
    assert submitted(fixed, dimensions=384).sampling.dimensions == 384
    assert submitted(EMBEDDER, dimensions=100).sampling.dimensions == 100


def test_all_vectors_of_a_request_are_bounded():
    unknown = record("embedder", dimensions=0)
    assert submitted(unknown, input=["a"] * 512)
    with pytest.raises(ApiError, match="at most 512 texts"):
        submitted(unknown, input=["a"] * 513)
    assert submitted(EMBEDDER, input=["a"] * 2_048)
    with pytest.raises(ApiError, match="more than 2048"):
        submitted(EMBEDDER, input=["a"] * 2_049)


def test_vectors_are_shown_as_numbers_or_as_bytes():
    output = EmbeddingOutput(2, struct.pack("<4f", 1, 2, 3, 4))
    numbers = list(shown(output, "float"))
    assert [(one["index"], one["embedding"]) for one in numbers] == [(0, [1, 2]), (1, [3, 4])]
    encoded = [one["embedding"] for one in shown(output, "base64")]
    assert struct.unpack("<2f", base64.b64decode(encoded[1])) == (3, 4)
