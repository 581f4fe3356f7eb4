"""What the router settles itself: nothing was called, so nothing is charged."""

import pytest
from collegium_contracts import codec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import TaskCanceled, TaskFailed
from collegium_contracts.money import Usage
from collegium_router.settlement import canceled, expired, failed


def test_an_expired_task_says_how_long_it_waited_and_that_nothing_was_called(submission):
    task = submission().task
    settled = expired(task, task.created_at_ms + 50_250)
    assert isinstance(settled, TaskFailed)
    assert (settled.stop_reason, settled.error.code) == ("deadline", "deadline_exceeded")
    assert task.id in settled.error.message
    assert "50.2 s" in settled.error.message
    assert "nothing was called" in settled.error.message


@pytest.mark.parametrize("reason", ["canceled", "client_disconnected"])
def test_a_canceled_task_keeps_who_ended_it(submission, reason):
    settled = canceled(submission().task, 5, reason)
    assert isinstance(settled, TaskCanceled)
    assert (settled.stop_reason, settled.partial) == (reason, None)


def test_a_task_that_cannot_be_planned_keeps_the_reason(submission):
    error = TaskError(code="unknown_model", message="model 'x' is not in the roster", param="model")
    settled = failed(submission().task, error, 5)
    assert isinstance(settled, TaskFailed)
    assert (settled.error, settled.stop_reason) == (error, "failed")


def test_nothing_is_charged_and_the_message_travels(submission):
    task = submission(plan="panel").task
    for settled in (expired(task, 9), canceled(task, 9), failed(task, TaskError(code="x", message="y"), 9)):
        assert (settled.usage, settled.attempts, settled.settled_at_ms) == (Usage(), [], 9)
        assert (settled.task, settled.plan) == (task, "panel")
        assert codec.settled.decode(codec.encode(settled)) == settled
