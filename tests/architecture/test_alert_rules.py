"""Alert rules read by themselves: every one is whole, and speaks of metrics that the platform has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from collegium_telemetry import names

ROOT = Path(__file__).parents[2]
RULES = [
    pytest.param(rule, id=rule["alert"])
    for path in sorted((ROOT / "deploy" / "alerts").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
METRICS = {value for name, value in vars(names).items() if name.startswith("METRIC_")}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_whole_and_its_metrics_exist(rule: dict[str, Any]):
    assert {"alert", "expr", "labels", "annotations"} <= set(rule)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description"} <= set(rule["annotations"])
    used = set(re.findall(r"collegium_\w+", rule["expr"]))
    assert used
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= METRICS
