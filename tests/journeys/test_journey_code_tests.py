"""Answers that are code on a running platform: run against the tests that came with the task, by whatever plan."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from collegium_testing.simulator import Behaviour, Rule

from tests.conftest import Stage

pytestmark = pytest.mark.timeout(240)

SQUARES: list[dict[str, Any]] = [
    {"call": "square(2)", "equals": 4},
    {"call": "square(-3)", "equals": 9},
    {"code": "assert square(0) == 0\nassert square(1) == 1"},
]
RIGHT = "Here it is:\n```python\ndef square(x):\n    return x * x\n```\nIt multiplies x by itself."
WRONG = "```python\ndef square(x):\n    return x + 2\n```"
LACKS = "```python\nimport heapq\n\ndef square(x):\n    return heapq.nlargest(1, [x * x])[0]\n```"


def says(stage: Stage, *answers: str) -> None:
    """Scripts what the model answers, call by call."""
    stage.simulator.script(*(Rule(Behaviour(answer=one), match="squares", times=1) for one in answers))


async def asked(stage: Stage, *, status: int = 200, **options: Any) -> Any:
    body = {"model": "sim", "input": "Write a function that squares.", "tests": SQUARES, "max_tokens": 200, **options}
    wait = {"Prefer": "wait=60"}
    async with stage.session() as session, session.post("/v1/tasks", json=body, headers=wait) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer


async def test_a_panel_asks_until_an_answer_passes_and_shows_what_tests_said(stage: Stage):
    says(stage, WRONG, LACKS, RIGHT, WRONG)
    answer = await asked(stage, plan="panel", panel_size=5)
    about = answer["collegium"]
    assert "x * x" in answer["output"]
    assert (about["attempts"], about["stop_reason"]) == (3, "completed")
    assert about["tests"] == {"state": "passed", "passed": 3, "of": 3}
    assert about["confidence"] == pytest.approx(0.875)
    command = [sys.executable, "-m", "collegium_cli", "task", "show", answer["id"]]
    shown = subprocess.run(  # noqa: ASYNC221 - our own module
        [*command, "--data", str(stage.platform.folder)], check=False, capture_output=True, text=True
    )
    assert not shown.returncode, shown.stderr
    tested = [line for line in shown.stdout.splitlines() if "AttemptTested" in line]
    wanted = ("it gave something else", "the interpreter lacks what it uses", "3 of 3 tests passed")
    assert [words in line for line, words in zip(tested, wanted, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("answer", "stop_reason", "state"),
    [(RIGHT, "completed", "passed"), (WRONG, "tests_failed", "failed"), (LACKS, "tests_not_run", "not_run")],
)
async def test_one_answer_is_handed_out_with_what_its_tests_said(
    stage: Stage, answer: str, stop_reason: str, state: str
):
    says(stage, answer)
    about = (await asked(stage, plan="single"))["collegium"]
    assert (about["plan"], about["attempts"], about["stop_reason"]) == ("single", 1, stop_reason)
    assert about["tests"]["state"] == state


async def test_tests_that_are_none_are_refused_by_name(stage: Stage):
    says(stage)
    body = [*SQUARES, {"call": "square(2", "equals": 4}]
    refused = await asked(stage, tests=body, status=400)
    assert (refused["error"]["code"], refused["error"]["param"]) == ("invalid_value", "tests[3].call")
