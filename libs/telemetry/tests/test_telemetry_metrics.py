"""Metrics as Prometheus reads them."""

from collections.abc import Callable

import pytest
from collegium_telemetry.metrics import LABELS_MAX, Metrics, label
from prometheus_client.parser import text_string_to_metric_families


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return one.value
    return None


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("router")


def test_every_named_metric_is_rendered(metrics: Metrics) -> None:
    metrics.watch_gauge("collegium_queue_depth", lambda: 3)
    text = metrics.render().decode()
    for name in (
        "collegium_tasks_total",
        "collegium_task_duration_seconds",
        "collegium_overhead_seconds",
        "collegium_queue_depth",
        "collegium_cost_usd_total",
        "collegium_cache_requests_total",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ):
        assert f"# TYPE {name} " in text
    assert "_created" not in text


def test_what_is_counted_is_shown(metrics: Metrics) -> None:
    metrics.tasks["completed"].inc()
    metrics.tasks["completed"].inc(2)
    metrics.cache_requests["hit_exact"].inc()
    metrics.overhead.observe(0.001)
    metrics.histograms("tokens", "Tokens", (1, 100), ("model", "type"))["glm-4.5", "input"].observe(100)
    metrics.add_cost("glm-4.5", 1_500_000_000_000)
    assert sample(metrics, "collegium_tasks_total", state="completed") == 3
    assert sample(metrics, "collegium_cache_requests_total", result="hit_exact") == 1
    assert sample(metrics, "collegium_overhead_seconds_bucket", le="0.001") == 1
    assert sample(metrics, "tokens_sum", model="glm-4.5", type="input") == 100
    assert sample(metrics, "collegium_cost_usd_total", model="glm-4.5") == 1.5


def test_a_child_is_looked_up_once(metrics: Metrics) -> None:
    assert metrics.tasks["completed"] is metrics.tasks["completed"]


def test_a_gauge_is_read_at_the_scrape_and_may_be_replaced(metrics: Metrics) -> None:
    depth = [1]
    read: Callable[[], int] = depth.__len__
    metrics.watch_gauge("collegium_queue_depth", read)
    depth.append(2)
    assert sample(metrics, "collegium_queue_depth") == 2
    metrics.watch_gauge("collegium_queue_depth", lambda: 7)
    assert sample(metrics, "collegium_queue_depth") == 7


def test_gauges_by_label_are_read_at_the_scrape_and_what_is_gone_is_shown_no_more(metrics: Metrics) -> None:
    health = {"glm-4.5": 0.8, "old": 1.0}
    metrics.watch_gauges("health", "model", lambda: health, "How well")
    assert sample(metrics, "health", model="glm-4.5") == 0.8
    health["glm-4.5"] = 0.0
    del health["old"]
    assert sample(metrics, "health", model="glm-4.5") == 0.0
    assert sample(metrics, "health", model="old") is None
    metrics.watch_gauges("health", "model", lambda: {f"model-{number}": 1 for number in range(LABELS_MAX + 50)}, "")
    assert metrics.render().decode().count("health{") == LABELS_MAX


def test_a_label_is_spelled_as_prometheus_does() -> None:
    assert label("gen_ai.request.model") == "gen_ai_request_model"


def test_too_many_labels_are_counted_together(metrics: Metrics) -> None:
    one = metrics.gauges("health", "How well", ("model",))
    two = metrics.histograms("tokens", "Tokens", (1, 100), ("model", "type"))
    for number in range(LABELS_MAX + 50):
        one[f"model-{number}"].set(1)
        two[f"model-{number}", "input"].observe(1)
    assert metrics.render().decode().count("health{") == LABELS_MAX + 1
    assert sample(metrics, "tokens_count", model="other", type="other") == 50


def test_services_of_one_process_do_not_share(metrics: Metrics) -> None:
    metrics.tasks["completed"].inc()
    assert sample(Metrics("billing"), "collegium_tasks_total", state="completed") is None
