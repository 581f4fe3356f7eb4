"""``eval consensus`` and ``eval cascade`` on small recordings."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_cli.arguments import parser
from collegium_cli.eval import cascade, consensus
from collegium_cli.eval.panels import kinds_of, read_rows
from collegium_cli.eval.reading import EvaluationError

SHARES = {"good": 0.8, "fair": 0.65, "poor": 0.5}


class Flat:
    """An embedder for which all questions are alike."""

    def add(self, texts: list[str]) -> None:
        """Does nothing."""

    def __getitem__(self, text: str) -> np.ndarray:
        return np.array([1.0, 0.0], np.float32)


def panel(seed: int, count: int = 120) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        correct = {name: int(drawn.random() < share) for name, share in SHARES.items()}
        answers = {name: "$7.00" if good else drawn.choice(["8", "9", "none of it"]) for name, good in correct.items()}
        rows.append(
            {"id": f"{seed}.{number}", "input": "?", "domain": "d", "gold": "7", "answers": answers, "correct": correct}
        )
    return rows


def cascades(seed: int, count: int = 300) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        easy = drawn.random() < 0.7
        grades = [int(drawn.random() < (0.99 if easy else 0.2)) for _ in range(3)]
        samples = ["7" if good else str(drawn.randrange(8, 99)) for good in grades]
        strong = int(drawn.random() < (0.99 if easy else 0.8))
        rows.append(
            {
                "id": f"{seed}.{number}",
                "input": "?",
                "domain": None,
                "gold": "7",
                "samples": {"w": samples, "s": ["7" if strong else "0"]},
                "correct_samples": {"w": grades, "s": [strong]},
            }
        )
    return rows


def routed(seed: int, count: int = 300) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    outcome = {"cost_usd": None, "latency_s": None}
    rows: list[dict[str, Any]] = []
    for number in range(count):
        domain = drawn.choice(["easy", "hard"])
        weak = float(drawn.random() < (0.97 if domain == "easy" else 0.4))
        outcomes = {"w": {"score": weak, **outcome}, "s": {"score": float(drawn.random() < 0.95), **outcome}}
        rows.append({"id": f"{seed}.{number}", "input": "?", "domain": domain, "outcomes": outcomes})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    return path


def run(
    kind: str, module: Any, tmp_path: Path, rows: Callable[[int], list[dict[str, Any]]], more: list[str],
    patched: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:  # fmt: skip
    patched.setattr(module, "Embedded", Flat)
    files = ["--train", str(write(tmp_path / "t.jsonl", rows(1))), "--data", str(write(tmp_path / "d.jsonl", rows(2)))]
    options = parser().parse_args(["eval", kind, *files, *more])
    assert options.run(options) == 0
    figures: dict[str, Any] = msgspec.json.decode(capsys.readouterr().out)
    return figures


def is_figure(value: Any) -> bool:
    return set(value) == {"value", "low", "high"} and value["low"] <= value["value"] <= value["high"]


def test_the_figures_of_a_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run("consensus", consensus, tmp_path, panel, ["--models", ",".join(SHARES)], monkeypatch, capsys)
    assert figures["best_member_model"] == "good"
    for name in ("accuracy", "best_member", "majority", "asked_mean", "accuracy_adaptive"):
        assert is_figure(figures[name]), name
    assert set(figures["ece"]) == {"value", "low", "high"}
    assert is_figure(figures["unanimous"]["share"])
    assert is_figure(figures["unanimous"]["accuracy"])
    assert figures["answer_types"] == {"d": "number"}
    assert figures["accuracy"]["value"] >= max(figures["majority"]["value"], figures["best_member"]["value"])
    assert 2.0 <= figures["asked_mean"]["value"] <= 3.0


def test_grades_of_a_row_that_is_measured_change_no_decision() -> None:
    train, data = panel(1), panel(2)
    turned = [
        {**row, "gold": "0", "correct": {name: 1 - good for name, good in row["correct"].items()}} for row in data
    ]
    kinds = kinds_of([("d", "7", True)])
    members = list(SHARES)
    known = consensus.outcomes_of(train, members, kinds)
    lesson = consensus.learned_from(known, np.ones((len(known), 1), np.float32), 1)
    for one, other in zip(
        consensus.outcomes_of(data, members, kinds), consensus.outcomes_of(turned, members, kinds), strict=True
    ):
        first, second = consensus.judge(one, lesson, 0.5, 0), consensus.judge(other, lesson, 0.5, 0)
        assert (first.confidence, first.asked, first.unanimous) == (second.confidence, second.asked, second.unanimous)
        assert first.given_right != second.given_right


def test_a_row_without_a_members_answer_counts_as_wrong_for_it() -> None:
    row: dict[str, Any] = {"answers": {"good": "7"}, "correct": {"good": 1}, "domain": "d"}
    outcome = consensus.outcomes_of([row], ["good", "gone"], kinds_of([]))[0]
    assert [vote.key for vote in outcome.votes] == ["7", ""]
    assert outcome.right == (True, False)


@pytest.mark.parametrize("rows", [cascades, routed])
def test_the_figures_of_a_cascade(
    rows: Callable[[int], list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = ["--weak", "w", "--strong", "s", "--loss-max", "0.05"]
    figures = run("cascade", cascade, tmp_path, rows, more, monkeypatch, capsys)
    for name in ("accuracy", "strong_share", "weak_samples_mean"):
        assert is_figure(figures[name]), name
    assert figures["strong_share"]["value"] < 0.9
    assert figures["accuracy_strong"]["value"] - figures["accuracy"]["value"] <= 0.06
    assert figures["loss"]["value"] == pytest.approx(
        figures["accuracy_strong"]["value"] - figures["accuracy"]["value"], abs=1e-3
    )


def test_halves_are_drawn_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--weak", "w", "--strong", "s", "--loss-max", "0.1", "--splits", "3"]
    figures = run("cascade", cascade, tmp_path, routed, more, monkeypatch, capsys)
    assert figures["splits"] == 3
    assert figures["rows"] == 600
    assert is_figure(figures["kept"])


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no rows"), (b'{"id": 1}', "no field answers"), (b"{", "line 1")],
)
def test_what_cannot_be_read_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=said):
        read_rows(path, ("answers",))


@pytest.mark.parametrize(("models", "said"), [("good,absent", "absent"), ("good,good", "twice"), (" ", "no model")])
def test_members_that_are_not_there_are_named(
    models: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path / "rows.jsonl", panel(1, 3)))
    options = parser().parse_args(["eval", "consensus", "--train", path, "--data", path, "--models", models])
    assert options.run(options) == 1
    assert said in capsys.readouterr().err
