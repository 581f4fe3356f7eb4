"""Until when an answer is to be tested, in a header: only where there is something to test."""

from __future__ import annotations

import msgspec
import pytest
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptAnswered, AttemptFailed, AttemptRef, AttemptUsage, TaskRef
from collegium_contracts.money import Price, Usage
from collegium_contracts.testsnote import read_until, write_until

TASK = TaskRef(
    id="tsk_" + "0" * 26,
    tenant="acme",
    created_at_ms=1_767_225_600_000,
    deadline_ms=1_767_225_650_000,
    model="auto",
    tests=2,
)
ATTEMPT = AttemptRef(number=1, of=1, model="m", rank="ta", pool="general", price=Price(), charge=Price())
CALL = AttemptUsage(number=1, delivery=1, model="m", rank="ta", usage=Usage(), duration_ms=7, succeeded=True)
ANSWERED = AttemptAnswered(task=TASK, attempt=ATTEMPT, answer=Envelope("identity", b"", b"{}"), call=CALL, at_ms=1)


def test_an_answer_of_a_task_with_tests_says_until_when() -> None:
    assert read_until(write_until(ANSWERED)) == TASK.deadline_ms
    error = TaskError(code="upstream_timeout", message="it did not answer")
    for end in (
        msgspec.structs.replace(ANSWERED, task=msgspec.structs.replace(TASK, tests=0)),
        msgspec.structs.replace(ANSWERED, attempt=msgspec.structs.replace(ATTEMPT, judges=True)),
        AttemptFailed(task=TASK, attempt=ATTEMPT, error=error, call=CALL, at_ms=1),
    ):
        assert write_until(end) == ""


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", "9" * 5_000])
def test_what_is_no_note_is_none(text: str) -> None:
    assert read_until(text) is None
