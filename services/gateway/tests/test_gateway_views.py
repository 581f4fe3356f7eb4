"""What clients see of tasks."""

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.messages import TaskDispatched
from collegium_contracts.money import Usage
from collegium_gateway.readmodel.rows import row_of
from collegium_gateway.tasks.views import (
    answer_of,
    collegium_of,
    completion,
    openai_usage,
    result_headers,
    rfc3339,
    settled_view,
    task_view,
    usage_of,
)
from hypothesis import given
from hypothesis import strategies as st

KEYRING = IdentityKeyring()


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_600_123, "2026-01-01T00:00:00.123Z"),
        (1_767_225_600_001, "2026-01-01T00:00:00.001Z"),
        (951_827_696_990, "2000-02-29T12:34:56.990Z"),
    ],
)
def test_times_are_rfc_3339_in_utc_to_the_millisecond(unix_ms, text):
    assert rfc3339(unix_ms) == text


@given(st.integers(0, 4_102_444_800_000))
def test_times_lose_nothing(unix_ms):
    from datetime import datetime

    read = datetime.fromisoformat(rfc3339(unix_ms).replace("Z", "+00:00"))
    assert round(read.timestamp() * 1000) == unix_ms


def test_money_is_a_decimal_string_of_dollars():
    shown = usage_of(Usage(1, 2, cost_usd_picos=1, charge_usd_picos=12_340_000_000_000))
    assert (shown["cost_usd"], shown["charged_usd"]) == ("0.000000000001", "12.34")
    assert usage_of(Usage())["cost_usd"] == "0"


def test_a_completed_task_is_shown_whole(settled):
    view = settled_view(settled("completed"), KEYRING, "")
    assert (view.state, view.output, view.partial, view.error) == ("completed", "the answer", False, None)
    assert (view.created_at, view.settled_at) == ("2026-01-01T00:00:00.123Z", "2026-01-01T00:00:01.123Z")
    assert view.usage is not None
    assert view.usage["cost_usd"] == "0.0000015"
    assert view.usage["charged_usd"] == "0.000003"
    assert view.collegium is not None
    assert (view.collegium["model"], view.collegium["rank"], view.collegium["attempts"]) == ("m", "ta", 1)
    (attempt,) = view.attempts
    assert (attempt["number"], attempt["model"], attempt["succeeded"], attempt["error"]) == (1, "m", True, None)
    assert attempt["usage"]["input_tokens"] == 10


def test_a_failed_task_shows_its_error_and_what_had_been_produced(settled, sealed):
    view = settled_view(settled("failed", partial=sealed("half an")), KEYRING, "")
    assert (view.state, view.output, view.partial, view.stop_reason) == ("failed", "half an", True, "failed")
    assert view.error == {"message": "cut", "type": "upstream_error", "param": None, "code": "upstream_cut"}
    bare = settled_view(settled("failed"), KEYRING, "")
    assert (bare.output, bare.choices, bare.partial) == (None, None, False)


def test_a_canceled_task_shows_what_had_been_produced_and_no_error(settled, sealed):
    view = settled_view(settled("canceled", partial=sealed("half an")), KEYRING, "")
    assert (view.state, view.output, view.partial, view.error) == ("canceled", "half an", True, None)


def test_a_row_is_shown_like_its_message(settled, task):
    message = settled("completed")
    row = row_of(message, codec.encode(message))
    assert row is not None
    assert task_view(row, KEYRING) == settled_view(message, KEYRING, "")
    changed = TaskDispatched(task=task(priority="high", tags={"a": "b"}), plan="single", models=["m"], at_ms=1)
    row = row_of(changed, codec.encode(changed))
    assert row is not None
    view = task_view(row, KEYRING)
    assert (view.state, view.priority, view.tags, view.settled_at) == ("working", "high", {"a": "b"}, None)


def test_a_completion_is_openais(settled, sealed):
    message = settled("completed", output=sealed("one", "two", finish_reason="length"))
    answer = answer_of(KEYRING, "acme", message.output)
    assert answer is not None
    body = msgspec.json.decode(msgspec.json.encode(completion(message, answer, "trace")))
    assert body["id"] == f"chatcmpl-{message.task.id}"
    assert body["created"] == message.task.created_at_ms // 1000
    assert [choice["message"] for choice in body["choices"]] == [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    assert [(choice["index"], choice["finish_reason"]) for choice in body["choices"]] == [(0, "length"), (1, "length")]
    assert body["usage"]["total_tokens"] == 14
    assert body["collegium"]["trace_id"] == "trace"


def test_tool_calls_are_shown_as_they_came(settled, sealed):
    call = msgspec.Raw(b'{"id":"c","function":{"arguments":"{ }","name":"f"},"type":"function"}')
    message = settled("completed", output=sealed(None, tool_calls=[call], finish_reason="tool_calls"))
    answer = answer_of(KEYRING, "acme", message.output)
    assert answer is not None
    encoded = msgspec.json.encode(completion(message, answer, ""))
    assert bytes(call) in encoded
    assert b'"content":null' in encoded


def test_usage_for_openai_counts_cache_reads_within_the_prompt():
    assert openai_usage(Usage(10, 4, cached_input_tokens=2, reasoning_tokens=1)) == {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_the_extension_has_the_contracts_fields(settled):
    assert set(collegium_of(settled("completed"), "t")) == {
        *("task_id", "plan", "model", "rank", "attempts", "confidence", "cost_usd", "cache", "stop_reason", "trace_id")
    }


def test_headers_say_who_answered(settled):
    headers = dict(result_headers(settled("completed", model="模型")))
    assert headers[b"x-collegium-cost-usd"] == b"0.0000015"
    assert headers[b"x-collegium-model"] == b"??"
    assert set(headers) == {
        f"x-collegium-{name}".encode() for name in ("task-id", "model", "rank", "plan", "cache", "cost-usd")
    }
