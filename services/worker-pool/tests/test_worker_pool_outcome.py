"""From a call's end to its message: who pays for what."""

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts.content import Answer, Choice
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptAnswered, AttemptFailed, TaskCanceled, TaskCompleted, TaskFailed
from collegium_contracts.money import Usage
from collegium_contracts.routing import Route
from collegium_worker_pool.calling.outcome import CallEnd, call_usage, ended, settled, stop_reason_of

USED = Usage(5, 3, cost_usd_picos=50, charge_usd_picos=90)
TEXT = Envelope("identity", b"", b'{"choices":[]}')
CUT = TaskError(code="upstream_cut", message="cut")


def answered(**fields) -> CallEnd:
    return CallEnd(**({"usage": USED, "duration_ms": 12, "output": TEXT} | fields))


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "completed"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("something_new", "completed"),
    ],
)
def test_the_first_choices_finish_reason_is_the_tasks(finish, reason):
    assert stop_reason_of(Answer([Choice("a", finish), Choice("b", "stop")])) == reason


def test_an_answer_completes_and_is_charged(run):
    message = settled(run(), 2, answered(stop_reason="length"), 77)
    assert isinstance(message, TaskCompleted)
    assert (message.output, message.usage, message.stop_reason, message.settled_at_ms) == (TEXT, USED, "length", 77)
    assert (message.model, message.rank, message.plan) == ("m", "ta", "single")
    (call,) = message.attempts
    assert (call.number, call.delivery, call.usage, call.duration_ms, call.succeeded) == (1, 2, USED, 12, True)
    assert codec.settled.decode(codec.encode(message)) == message


@pytest.mark.parametrize("reason", ["failed", "deadline"])
def test_what_the_platform_or_the_endpoint_ended_is_booked_and_not_charged(run, reason):
    message = settled(run(), 1, answered(error=CUT, stop_reason=reason), 77)
    assert isinstance(message, TaskFailed)
    assert (message.error, message.partial, message.stop_reason) == (CUT, TEXT, reason)
    assert (message.usage.charge_usd_picos, message.usage.cost_usd_picos) == (0, 50)
    assert message.usage.output_tokens == 3
    (call,) = message.attempts
    assert (call.succeeded, call.error_code, call.usage.cost_usd_picos) == (False, "upstream_cut", 50)


@pytest.mark.parametrize("reason", ["canceled", "client_disconnected"])
def test_what_the_client_ended_is_charged_for_what_was_generated(run, reason):
    error = TaskError(code="canceled", message="canceled")
    message = settled(run(), 1, answered(error=error, stop_reason=reason), 77)
    assert isinstance(message, TaskCanceled)
    assert (message.partial, message.usage, message.stop_reason) == (TEXT, USED, reason)
    nothing = settled(run(), 1, answered(error=error, stop_reason=reason, output=None, usage=Usage()), 77)
    assert isinstance(nothing, TaskCanceled)
    assert (nothing.partial, nothing.usage) == (None, Usage())


def test_an_end_without_answer_and_without_reason_is_a_failure_not_an_empty_answer(run):
    message = settled(run(), 1, answered(output=None), 77)
    assert isinstance(message, TaskFailed)
    assert message.error.code == "internal_error"
    member = ended(run(), 1, answered(output=None), 77)
    assert isinstance(member, AttemptFailed)


def test_only_a_conversations_answer_carries_its_turn(run):
    prompt = run().prompt
    for make in (settled, ended):
        assert make(run(), 1, answered(), 77).turn is None
        assert make(run(conversation="c1"), 1, answered(), 77).turn == prompt


def test_a_member_of_a_panel_ends_its_attempt_and_settles_nothing(run, attempt):
    member = run(attempt=attempt(number=2, of=3, plan="panel"))
    good = ended(member, 1, answered(), 77)
    assert isinstance(good, AttemptAnswered)
    assert (good.answer, good.call.usage, good.call.number) == (TEXT, USED, 2)
    bad = ended(member, 1, answered(error=CUT, stop_reason="failed"), 77)
    assert isinstance(bad, AttemptFailed)
    assert (bad.error, bad.call.succeeded, bad.call.usage) == (CUT, False, USED)


def test_a_call_is_booked_with_its_model_and_delivery(run):
    call = call_usage(run(), 4, answered())
    assert (call.model, call.rank, call.delivery, call.error_code, call.wasted) == ("m", "ta", 4, "", False)


@pytest.mark.parametrize("fields", [{}, {"error": CUT, "stop_reason": "failed"}])
def test_every_end_repeats_why_its_model_was_chosen(run, attempt, fields):
    route = Route(model="m", rank="ta", policy_version=3, reasons=["explored"], propensity=0.01)
    routed = msgspec.structs.replace(run(), route=route)
    assert settled(routed, 1, answered(**fields), 77).route == route
    assert ended(routed, 1, answered(**fields), 77).route == route
