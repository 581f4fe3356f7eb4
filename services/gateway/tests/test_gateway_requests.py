"""Bodies of the doors: malformed, of the wrong types, or with fields that nobody knows."""

import msgspec
import pytest
from collegium_gateway.admission.requests import (
    decode_chat,
    decode_schedule,
    decode_task,
    decode_tenant,
    options_of,
    parse,
)
from collegium_gateway.errors import ApiError
from collegium_gateway.operating.identity_requests import decode_key
from hypothesis import given
from hypothesis import strategies as st


def refusal(decoder, body: bytes | dict) -> tuple[str, str | None]:
    with pytest.raises(ApiError) as raised:
        parse(decoder, body if isinstance(body, bytes) else msgspec.json.encode(body))
    assert raised.value.kind.http_status == 400
    return raised.value.code, raised.value.param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":}',
        b"not json",
        b'{"model":"m","messages":[]} trailing',
        b'{"model":"\xff","messages":[]}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"\xc3\x28"}]}]}',
        b'{"model":"m","messages":[],"tools":[{"a":"\xff"}]}',
        b'{"model":"\\ud800","messages":[]}',
        b'{"model":"m","messages":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"model":"m","messages":[],"temperature":NaN}',
        b'{"model":"m","messages":[],"tools":[}',
    ],
)
def test_what_is_no_json_is_malformed(body: bytes):
    assert refusal(decode_chat, body) == ("malformed_json", None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"n": "2"}, "n"),
        ({"collegium": []}, "collegium"),
        ({"collegium": {"plan": "best"}}, "plan"),
        ({"collegium": {"panel_size": "3"}}, "panel_size"),
        ({"collegium": {"priority": "urgent"}}, "priority"),
        ({"collegium": {"cache": True}}, "cache"),
        ({"collegium": {"tags": {"a": 1}}}, "tags[...]"),
        ({"collegium": {"deadline_seconds": "soon"}}, "deadline_seconds"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(fields, param):
    assert refusal(decode_chat, {"model": "m", "messages": []} | fields) == ("invalid_value", param)


@pytest.mark.parametrize("body", [{}, {"model": "m"}, {"messages": []}, [], "x", 5, None])
def test_what_is_missing_is_refused(body):
    assert refusal(decode_chat, msgspec.json.encode(body))[0] == "invalid_value"


@pytest.mark.parametrize(
    ("decoder", "body", "param"),
    [
        (decode_chat, {"model": "m"}, "messages"),
        (decode_chat, {"messages": []}, "model"),
        (decode_task, {}, "input"),
        (decode_schedule, {"cron": "* * * * *", "task": {"model": "m"}}, "task.input"),
    ],
)
def test_a_missing_field_is_named(decoder, body, param):
    assert refusal(decoder, body) == ("invalid_value", param)


def test_unknown_fields_of_openai_pass_and_ours_are_typing_errors():
    parse(decode_chat, b'{"model":"m","messages":[],"logit_bias":{},"user":"u","anything":[1]}')
    for decoder, body in (
        (decode_chat, {"model": "m", "messages": [], "collegium": {"pannel_size": 3}}),
        (decode_task, {"input": "x", "prioritty": "high"}),
        (decode_tenant, {"id": "x", "teir": "pro"}),
        (decode_key, {"tenant": "x", "scope": []}),
    ):
        with pytest.raises(ApiError, match="unknown field"):
            parse(decoder, msgspec.json.encode(body))


def test_a_task_has_the_extensions_fields_at_top_level_with_the_same_defaults():
    task = parse(decode_task, b'{"input":"x"}')
    options = options_of(task)
    assert options == parse(decode_chat, b'{"model":"m","messages":[],"collegium":{}}').collegium
    given_ = parse(decode_task, b'{"input":"x","plan":"panel","panel_size":5,"tags":{"a":"b"},"deadline_seconds":9}')
    assert (options_of(given_).plan, options_of(given_).panel_size, options_of(given_).tags) == ("panel", 5, {"a": "b"})
    assert refusal(decode_task, {"input": "x", "kind": "poem"}) == ("invalid_value", "kind")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_no_bytes_are_a_defect(body: bytes):
    for decoder in (decode_chat, decode_task, decode_tenant, decode_key):
        try:
            parse(decoder, body)
        except ApiError as error:
            assert error.code in ("malformed_json", "invalid_value")  # noqa: PT017 - accepted bytes are fine too


@given(
    st.dictionaries(st.sampled_from(["model", "messages", "stream", "n", "stop", "tools", "collegium"]), json_values)
)
def test_no_json_is_a_defect(body):
    try:
        parse(decode_chat, msgspec.json.encode(body))
    except ApiError as error:
        assert error.code in ("malformed_json", "invalid_value")  # noqa: PT017 - accepted bodies are fine too
