"""Keys of kept answers: what means the same shares one, whatever may change the answer does not."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from collegium_gateway.admission.admission import asked_by_chat
from collegium_gateway.admission.requests import decode_chat, parse
from collegium_gateway.reuse.cachekey import digest, has_answer_of_its_own
from hypothesis import given
from hypothesis import strategies as st

ASK: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "hi"}]}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": 1.5}}}]

texts = st.text(max_size=12)
floats = st.floats(0, 1).map(lambda value: round(value, 3))
schemas = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": st.none() | texts | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts})),
            "name": st.none() | texts,
            "tool_call_id": st.none() | texts,
            "tool_calls": st.none() | st.lists(st.dictionaries(texts, texts, max_size=2), max_size=2),
            "unknown": texts,
        },
    ),
    min_size=1,
    max_size=3,
)
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["sim", "sim2", "other"]),
    "messages": messages,
    "max_tokens": st.integers(1, 50),
    "temperature": floats,
    "top_p": floats,
    "frequency_penalty": floats,
    "presence_penalty": floats,
    "seed": st.integers(-5, 5),
    "stop": st.lists(texts, min_size=1, max_size=2),
    "n": st.integers(2, 5),
    "tools": st.lists(schemas, min_size=1, max_size=2),
    "tool_choice": st.sampled_from(["none", "required"]) | st.dictionaries(texts, texts, min_size=1, max_size=2),
    "response_format": st.dictionaries(texts, schemas, min_size=1, max_size=2),
}
requests = st.fixed_dictionaries(
    {"model": PARAMETERS["model"], "messages": messages},
    optional={name: one for name, one in PARAMETERS.items() if name not in ("model", "messages")},
)


def key(body: dict[str, Any] | bytes, tenant: str = "acme", **more: str) -> bytes | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return digest(tenant, asked_by_chat(parse(decode_chat, raw)), **more)


def meaning(body: dict[str, Any]) -> str:
    """A slow second opinion of what a request means."""

    def one(message: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in message.items() if value is not None}
        content = kept.get("content")
        if isinstance(content, list) and len(content) == 1 and set(content[0]) == {"type", "text"}:
            kept["content"] = content[0]["text"]
        return kept

    told = {name: value for name, value in body.items() if value is not None}
    return json.dumps({**told, "messages": [one(message) for message in body["messages"]]}, sort_keys=True)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        pairs = list(value.items())
        chance.shuffle(pairs)
        return {name: shuffled(one, chance) for name, one in pairs}
    return [shuffled(one, chance) for one in value] if isinstance(value, list) else value


def as_parts(body: dict[str, Any]) -> dict[str, Any]:
    """The same request with every text as a part, and with nulls for what is absent."""
    told = []
    for message in body["messages"]:
        content = message.get("content")
        parts = [{"text": content, "type": "text"}] if isinstance(content, str) else content
        told.append({"name": None, "tool_calls": None, "tool_call_id": None} | message | {"content": parts})
    absent: dict[str, Any] = dict.fromkeys(PARAMETERS)
    return absent | body | {"messages": told}


@given(requests, st.randoms(use_true_random=False))
def test_what_means_the_same_has_the_same_key(body: dict[str, Any], chance: random.Random):
    assert key(body) == key(shuffled(body, chance)) == key(as_parts(body))
    assert key(json.dumps(body, indent=3).encode()) == key(msgspec.json.encode(body))


@given(requests, st.sampled_from(sorted(PARAMETERS)), st.data())
def test_a_difference_in_any_parameter_makes_another_key(body: dict[str, Any], name: str, data: st.DataObject):
    other = {**body, name: data.draw(PARAMETERS[name])}
    same = meaning(body) == meaning(other)
    assert (key(body) == key(other)) is same


@given(requests, requests)
def test_two_requests_share_a_key_only_where_they_mean_the_same(first: dict[str, Any], second: dict[str, Any]):
    assert (key(first) == key(second)) is (meaning(first) == meaning(second))


@given(requests)
def test_tenant_and_knowledge_are_in_the_key(body: dict[str, Any]):
    keys = {key(body), key(body, "globex"), key(body, knowledge="7"), key(body, "acme7")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"tools": [{"a": 1}]}, {"tools": [{"a": 1.0}]}),
        ({"tools": [1.5]}, {"tools": ["1.5"]}),
        ({"tools": [True]}, {"tools": [1]}),
        ({"tools": [0.1]}, {"tools": [msgspec.Raw(b"0.1000000000000000055")]}),
        ({"tools": []}, {}),
        ({"messages": [{"role": "user", "content": "hi", "cache_control": {}}]}, {}),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "x": 1}]}]}, {}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]},
            {},
        ),
        ({"messages": [{"role": "system", "content": "hi"}]}, {}),
        ({"model": "auto"}, {"model": "auto", "collegium": {"domain": "law"}}),
    ],
)
def test_what_only_looks_alike_has_keys_of_its_own(first: dict[str, Any], second: dict[str, Any]):
    one, two = (key(msgspec.json.encode(ASK | fields)) for fields in (first, second))
    assert one is not None
    assert one != two


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"collegium": {"plan": "single"}},
        {"collegium": {"priority": "high", "deadline_seconds": 3, "tags": {"a": "b"}}},
        {"collegium": {"cache": "refresh"}},
        {"collegium": {"domain": "law"}},
        {"user": "somebody"},
        {"n": 1},
    ],
)
def test_who_asks_how_and_when_has_no_say(fields: dict[str, Any]):
    assert key(ASK | fields) == key(ASK)


def test_one_stop_word_is_a_list_of_one():
    assert key(ASK | {"stop": "x"}) == key(ASK | {"stop": ["x"]})
    assert key(ASK | {"max_completion_tokens": 5}) == key(ASK | {"max_tokens": 5})


def test_what_cannot_be_keyed_has_no_key():
    huge = b"1" * 40
    body = b'{"model":"sim","messages":[{"role":"user","content":"hi"}],"tools":[' + huge + b"]}"
    assert key(body) is None or key(body) != key(body.replace(huge, huge[:-1] + b"2"))


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({}, False),
        ({"plan": "single"}, False),
        ({"conversation": ""}, False),
        ({"plan": "panel"}, True),
        ({"conversation": "c1"}, True),
        ({"memory": "a/b"}, True),
    ],
)
def test_conversations_and_votes_have_answers_of_their_own(options: dict[str, Any], own: bool):
    asked = asked_by_chat(parse(decode_chat, json.dumps(ASK | {"collegium": options}).encode()))
    assert has_answer_of_its_own(asked) is own
