"""What the router settles itself: nothing was called, so nothing is charged."""

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptFailed, TaskCanceled, TaskFailed
from collegium_contracts.money import Usage
from collegium_router.dispatching.settlement import canceled, expired, failed


def test_an_expired_task_says_how_long_it_waited_and_that_nothing_was_called(submission):
    waiting = submission()
    task = waiting.task
    settled = expired(waiting, task.created_at_ms + 50_250)
    assert isinstance(settled, TaskFailed)
    assert (settled.stop_reason, settled.error.code) == ("deadline", "deadline_exceeded")
    assert task.id in settled.error.message
    assert "50.2 s" in settled.error.message
    assert "nothing was called" in settled.error.message


@pytest.mark.parametrize("reason", ["canceled", "client_disconnected"])
def test_a_canceled_task_keeps_who_ended_it(submission, reason):
    settled = canceled(submission(), 5, reason)
    assert isinstance(settled, TaskCanceled)
    assert (settled.stop_reason, settled.partial) == (reason, None)


def test_a_task_that_cannot_be_planned_keeps_the_reason(submission):
    error = TaskError(code="unknown_model", message="model 'x' is not in the roster", param="model")
    settled = failed(submission(), error, 5)
    assert isinstance(settled, TaskFailed)
    assert (settled.error, settled.stop_reason) == (error, "failed")


def test_nothing_is_charged_and_the_message_travels(submission):
    waiting = submission(plan="panel")
    task = waiting.task
    for settled in (expired(waiting, 9), canceled(waiting, 9), failed(waiting, TaskError(code="x", message="y"), 9)):
        assert (settled.usage, settled.attempts, settled.settled_at_ms) == (Usage(), [], 9)
        assert (settled.task, settled.plan) == (task, "panel")
        assert codec.settled.decode(codec.encode(settled)) == settled


def test_what_an_attempt_called_before_stays_in_the_books_and_is_not_charged(again):
    waiting = again()
    for settled in (expired(waiting, 9), canceled(waiting, 9), failed(waiting, waiting.error, 9)):
        assert settled.attempts == waiting.run.earlier
        assert settled.usage.cost_usd_picos == sum(call.usage.cost_usd_picos for call in waiting.run.earlier) > 0
        assert settled.usage.charge_usd_picos == 0


def test_a_member_of_a_panel_ends_itself_and_not_the_task(again):
    waiting = again(of=3)
    for ended, code in ((expired(waiting, 9), "deadline_exceeded"), (canceled(waiting, 9), "canceled")):
        assert isinstance(ended, AttemptFailed)
        assert (ended.error.code, ended.earlier) == (code, waiting.run.earlier)
        assert ended.call.delivery == 0, "it says that nothing more was called"
        assert msgspec.structs.replace(ended.call.usage) == Usage()
