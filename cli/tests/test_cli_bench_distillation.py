"""What the benchmark of distillation asks, and what it refuses before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from collegium_cli.arguments import parser
from collegium_cli.bench import distillation
from collegium_cli.bench.distillation import Options, Question
from collegium_cli.bench.stage import StageError


def test_made_questions_are_all_different_and_the_same_for_a_seed() -> None:
    asked = distillation.made(2_000, seed=1)
    assert len({one.text for one in asked}) == 2_000
    assert len({one.label for one in asked}) == 95
    assert all(one.label in one.text for one in asked)
    assert asked == distillation.made(2_000, seed=1)
    assert asked != distillation.made(2_000, seed=2)


def test_recorded_questions_count_once_in_an_order_that_the_seed_draws(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [f'{{"id": "{number}", "text": "question {number % 50}", "class": "c"}}' for number in range(60)]
    rows.write_text("\n".join(lines))
    found = distillation.recorded(rows, seed=1)
    assert sorted(found, key=lambda one: one.text) == sorted(
        (Question(f"question {number}", "c") for number in range(50)), key=lambda one: one.text
    )
    assert found == distillation.recorded(rows, seed=1)
    assert found != distillation.recorded(rows, seed=2)


@pytest.mark.parametrize("line", ["{", '{"text": "no class"}', "[]", "1"])
def test_rows_that_are_none_are_named(tmp_path: Path, line: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"text": "a", "class": "b"}}\n{line}\n')
    with pytest.raises(StageError, match=r"rows\.jsonl:2 holds no text and its class"):
        distillation.recorded(rows, seed=1)


def test_questions_that_leave_none_to_ask_are_refused(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "class": "b"}\n')
    with pytest.raises(StageError, match="leave none to ask"):
        distillation.run(Options(samples=1, recorded=rows))


def test_what_the_command_line_takes() -> None:
    words = ["bench", "distillation", "--samples", "9", "--questions", "rows.jsonl", "--json"]
    options = parser().parse_args(words)
    assert (options.samples, options.questions, options.json) == (9, Path("rows.jsonl"), True)
