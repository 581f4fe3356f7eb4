"""``eval router`` on small recordings."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_cli.arguments import parser
from collegium_cli.eval import router

DOMAINS = {"easy": (0.9, 0.9), "hard": (0.3, 0.9)}


class Flat:
    """An embedder for which all questions are alike."""

    def add(self, texts: list[str]) -> None:
        """Does nothing."""

    def __getitem__(self, text: str) -> np.ndarray:
        return np.array([1.0, 0.0], np.float32)


def rows(seed: int, *, turned: bool = False, priced: bool = True, count: int = 600) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    found: list[dict[str, Any]] = []
    for number in range(count):
        domain = drawn.choice([*DOMAINS, None])
        shares = DOMAINS[domain or "hard"]
        scores = [float(drawn.random() < share) for share in shares]
        outcomes = {
            name: {"score": 1 - score if turned else score, "cost_usd": cost if priced else None, "latency_s": None}
            for name, score, cost in zip(("w", "s"), scores, (0.001, 0.01), strict=True)
        }
        if number == 0:
            del outcomes["w"]
        found.append({"id": f"{seed}.{number}", "input": f"what is {number}?", "domain": domain, "outcomes": outcomes})
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(router, "Embedded", Flat)

    def evaluate(*more: str, data: list[dict[str, Any]] | None = None, **shape: Any) -> dict[str, Any]:
        paths: list[str] = []
        for name, of in (("train", rows(1, **shape)), ("data", data or rows(2, **shape))):
            path = tmp_path / f"{name}.jsonl"
            path.write_bytes(b"\n".join(msgspec.json.encode(row) for row in of))
            paths += [f"--{name}", str(path)]
        options = parser().parse_args(["eval", "router", *paths, *more])
        if options.run(options):
            return {"error": capsys.readouterr().err}
        figures: dict[str, Any] = msgspec.json.decode(capsys.readouterr().out)
        return figures

    return evaluate


PAIR = ("--weak", "w", "--strong", "s")


def is_figure(value: Any) -> bool:
    return set(value) == {"value", "low", "high"} and value["low"] <= value["value"] <= value["high"]


def test_the_figures_of_two_models(run):
    figures = run(*PAIR)
    names = ("apgr", "accuracy_weak", "accuracy_strong", "decision_ms_p50", "decision_ms_p99")
    assert all(is_figure(figures[name]) for name in names)
    assert {"cpt50", "cpt80"} < set(figures)
    assert figures["apgr"]["value"] > 0.55
    assert set(figures["certified"]) == {"0.01", "0.02", "0.03", "0.05"}
    for loss, one in figures["certified"].items():
        assert is_figure(one["weak_share"])
        assert one["loss"]["value"] <= float(loss) + 0.03
    assert figures["certified"]["0.05"]["weak_share"]["value"] > 0.2


def test_grades_of_rows_that_are_measured_change_no_decision(run):
    straight, turned = run(*PAIR), run(*PAIR, data=rows(2, turned=True))
    for loss in straight["certified"]:
        assert straight["certified"][loss]["weak_share"] == turned["certified"][loss]["weak_share"]
    first, second = (run("--models", "all", data=rows(2, turned=flag)) for flag in (False, True))
    assert first["share"] == second["share"]
    assert first["accuracy"] != second["accuracy"]


def test_the_figures_of_all_models(run):
    figures = run("--models", "all", "--loss-max", "0.02")
    assert figures["baseline_model"] == "s"
    for name in ("baseline_accuracy", "accuracy", "cost_usd", "saving"):
        assert is_figure(figures[name]), name
    assert figures["saving"]["value"] > 0.2
    assert figures["loss"]["value"] < 0.05
    assert sum(one["value"] for one in figures["share"].values()) == pytest.approx(1.0, abs=1e-3)
    # The missing outcome has no cost either.
    assert figures["rows_without_cost"] <= 1


def test_without_costs_the_best_is_taken(run):
    figures = run("--models", "all", priced=False)
    assert figures["rows_without_cost"] == figures["rows"]
    assert figures["accuracy"]["value"] >= figures["baseline_accuracy"]["value"] - 0.01


def test_many_halvings_say_how_often_the_bound_held(run):
    figures = run(*PAIR, "--splits", "3")
    assert figures["splits"] == 3
    assert is_figure(figures["apgr"])
    assert all(0 <= one["holds"] <= 3 for one in figures["certified"].values())


@pytest.mark.parametrize("more", [("--weak", "w"), ("--weak", "w", "--strong", "nobody")])
def test_what_cannot_be_measured_is_said(run, more):
    assert "collegium eval:" in run(*more)["error"]
