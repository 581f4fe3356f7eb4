"""Alert rules tried on series: when each fires and when it does not.

The cases have the form of promtool's tests of rules; alerts are compared by their labels, not by their texts. One rule:
here is as much of Prometheus's language as the rules speak, and a rule that says more fails until this knows it.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from collegium_contracts.ids import SHARDS

ALERTS = Path(__file__).parents[2] / "deploy" / "alerts"
MINUTE = 60
STALE_SECONDS = 300

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]
_AGGREGATE = re.compile(r"(sum|max)(?: by \((\w+)\))? ?\((.+)\)")
_INCREASE = re.compile(r"increase\((\w+)\[(\d+)m\]\)")


def rules(*files: str) -> dict[str, dict[str, Any]]:
    found = (yaml.safe_load((ALERTS / "tests" / file).read_text()) for file in files)
    return {rule["alert"]: rule for read in found for group in read["groups"] for rule in group["rules"]}


def cases() -> Iterator[Any]:
    for file in sorted((ALERTS / "tests").glob("*.yaml")):
        read = yaml.safe_load(file.read_text())
        known = rules(*read["rule_files"])
        for test in read["tests"]:
            for case in test["alert_rule_test"]:
                name = f"{test['name']}-{case['alertname']}-{case['eval_time']}"
                yield pytest.param(known[case["alertname"]], test["input_series"], case, id=name)


class Series:
    """Series of one sample a minute."""

    def __init__(self, told: list[Mapping[str, str]]) -> None:
        self._samples: dict[tuple[str, Labels], list[float]] = {}
        for one in told:
            name, _, labels = one["series"].partition("{")
            pairs = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels)))
            self._samples[name, pairs] = list(values(str(one["values"])))

    def at(self, name: str, seconds: int) -> Vector:
        """The newest sample of each series, none that is older than five minutes."""
        found: Vector = {}
        for (metric, labels), samples in self._samples.items():
            newest = min(seconds // MINUTE, len(samples) - 1)
            if metric == name and seconds - newest * MINUTE < STALE_SECONDS:
                found[labels] = samples[newest]
        return found

    def increase(self, name: str, minutes: int, seconds: int) -> Vector:
        """How much each series grew in so many minutes; a series that begins again begins at nothing."""
        found: Vector = {}
        last = seconds // MINUTE
        for (metric, labels), samples in self._samples.items():
            window = samples[max(0, last - minutes) : last + 1]
            if metric == name and len(window) > 1:
                steps = itertools.pairwise(window)
                found[labels] = sum(now - before if now >= before else now for before, now in steps)
        return found


def values(text: str) -> Iterator[float]:
    """Reads promtool's shorthand: ``3``, ``0x40`` (41 times), ``0+60x40``."""
    for part in text.split():
        start, step, count = re.fullmatch(r"(\d+)(?:\+(\d+))?(?:x(\d+))?", part).groups()  # pyright: ignore[reportOptionalMemberAccess]
        for number in range(int(count or 0) + 1):
            yield float(start) + number * float(step or 0)


def evaluate(expr: str, series: Series, seconds: int) -> Vector:
    """Returns what an expression gives at a time."""
    if compared := re.fullmatch(r"(.+) (<|>|==) (\d+)", expr):
        left, sign, bound = compared.groups()
        limit = float(bound)
        given = evaluate(left, series, seconds)
        holds = {"<": operator.lt, ">": operator.gt, "==": operator.eq}[sign]
        return {labels: one for labels, one in given.items() if holds(one, limit)}
    if expr.startswith("time() - "):
        return {labels: seconds - one for labels, one in evaluate(expr[9:], series, seconds).items()}
    if absent := re.fullmatch(r"absent\((\w+)\)", expr):
        return {} if series.at(absent[1], seconds) else {(): 1.0}
    if grown := _INCREASE.fullmatch(expr):
        return series.increase(grown[1], int(grown[2]), seconds)
    if aggregate := _AGGREGATE.fullmatch(expr):
        return aggregated(aggregate[1], aggregate[2], aggregate[3], series, seconds)
    assert re.fullmatch(r"\w+", expr), f"{expr!r} is more than these tests can read"
    return series.at(expr, seconds)


def aggregated(how: str, by: str | None, of: str, series: Series, seconds: int) -> Vector:
    groups: dict[Labels, list[float]] = {}
    for labels, one in evaluate(of, series, seconds).items():
        groups.setdefault(tuple(pair for pair in labels if pair[0] == by), []).append(one)
    return {labels: sum(ones) if how == "sum" else max(ones) for labels, ones in groups.items()}


def firing(rule: dict[str, Any], series: Series, seconds: int) -> list[dict[str, str]]:
    """Returns the labels of the alerts that fire: those that held at every minute of the rule's patience."""
    patience = int(str(rule.get("for", "0m")).removesuffix("m")) * MINUTE
    held: set[Labels] | None = None
    for moment in range(max(0, seconds - patience), seconds + 1, MINUTE):
        now = set(evaluate(rule["expr"], series, moment))
        held = now if held is None else held & now
    if seconds < patience:
        return []
    return [dict(labels) | rule["labels"] for labels in sorted(held or ())]


@pytest.mark.parametrize(("rule", "told", "case"), list(cases()))
def test_a_rule_fires_when_it_should_and_only_then(
    rule: dict[str, Any], told: list[Mapping[str, str]], case: dict[str, Any]
) -> None:
    seconds = int(case["eval_time"].removesuffix("m")) * MINUTE
    expected = [one["exp_labels"] for one in case["exp_alerts"]]
    assert firing(rule, Series(told), seconds) == expected


def test_every_rule_is_seen_firing_and_seen_at_rest() -> None:
    files = sorted(file.name for file in ALERTS.glob("*.yaml"))
    seen = {True: set[str](), False: set[str]()}
    for parameter in cases():
        case = parameter.values[2]
        seen[bool(case["exp_alerts"])].add(case["alertname"])
    every = set(rules(*(f"../{file}" for file in files)))
    assert seen == {True: every, False: every}


def test_the_rule_about_owners_counts_the_shards_there_are() -> None:
    rule = rules("../money.yaml")["CollegiumHoldsUnowned"]
    assert rule["expr"].endswith(f"< {len(SHARDS)}")
    assert f"of {len(SHARDS)} shards" in rule["annotations"]["summary"]
