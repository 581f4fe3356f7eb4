"""What is measured of calls: by the conventions' names, and within a bound whatever endpoints say."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_contracts.errors import TaskError
from collegium_contracts.money import Usage
from collegium_telemetry.metrics import Metrics
from collegium_worker_pool.calling.measuring import SAID_CHARS_MAX, SAID_MAX, Measures
from collegium_worker_pool.calling.outcome import CallEnd
from collegium_worker_pool.upstream.endpoints import Endpoint

ENDPOINT = Endpoint(
    url="http://here/chat/completions",
    headers={},
    upstream_model="m",
    provider="openai-compatible",
    timeout_seconds=5,
    concurrency=None,
)
SERVED = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai-compatible",
    "gen_ai_request_model": "m",
    "gen_ai_response_model": "m-1",
}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("worker-pool")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, SERVED | labels)


def end(**fields: Any) -> CallEnd:
    values: dict[str, Any] = {"usage": Usage(input_tokens=12, output_tokens=3), "duration_ms": 1500}
    return CallEnd(**(values | fields))


def test_a_call_has_its_duration_its_tokens_and_its_first_token(metrics: Metrics, run: Any):
    Measures(metrics).ended(run(), ENDPOINT, end(), "m-1", 0.25)
    assert value(metrics, "gen_ai_client_operation_duration_seconds_sum", error_type="") == 1.5
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 12
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 3
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum") == 0.25


def test_a_failed_call_has_its_error_and_no_tokens_where_none_are_known(metrics: Metrics, run: Any):
    failed = end(usage=Usage(), error=TaskError(code="upstream_error", message="it answered 500"))
    Measures(metrics).ended(run(), ENDPOINT, failed, "", None)
    labels = {"gen_ai_response_model": "", "error_type": "upstream_error"}
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **labels) == 1
    text = metrics.render().decode()
    assert "gen_ai_client_token_usage_count" not in text
    assert "gen_ai_server_time_to_first_token_seconds_count" not in text


def test_an_embedding_is_an_operation_of_its_own(metrics: Metrics, run: Any):
    Measures(metrics).ended(run(kind="embedding"), ENDPOINT, end(usage=Usage(input_tokens=7)), "m-1", None)
    labels = {"gen_ai_operation_name": "embeddings"}
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **labels) == 7
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **labels) is None


def test_an_endpoint_that_names_itself_anew_each_time_does_not_fill_the_memory(metrics: Metrics, run: Any):
    measures = Measures(metrics)
    for number in range(100):
        measures.ended(run(), ENDPOINT, end(), f"m-{number}", 0.1)
    measures.ended(run(), ENDPOINT, end(), "m-1", 0.1)
    measures.ended(run(), ENDPOINT, end(), "x" * (SAID_CHARS_MAX + 1), 0.1)
    assert metrics.render().decode().count("gen_ai_server_time_to_first_token_seconds_count{") < SAID_MAX
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count") == 2
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", gen_ai_response_model="other") > 90
