"""From a call's end to the message that says it. Pure.

A plan of one attempt settles its task straight away; a member of a larger plan ends its attempt, and consensus settles.
One rule: what was generated is billed when the client ended the call, and not when the platform or the endpoint did.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import msgspec
from collegium_contracts.content import Answer
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptEnded,
    AttemptFailed,
    AttemptRequested,
    AttemptRetried,
    AttemptUsage,
    RunAttempt,
    SettledMessage,
    StopReason,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
)
from collegium_contracts.money import Usage, add_usage


class CallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended: sealed output (the answer, or what there was of it), usage, and an error unless it answered.

    ``called`` is false where nothing was called: then nothing is booked. ``asked`` are the rules that want a person to
    look at the answer, ``confidence`` is how probably right it is, where whoever gave it can tell.
    """

    usage: Usage
    duration_ms: int
    output: Envelope | None = None
    finish_reason: str = "stop"
    error: TaskError | None = None
    stop_reason: StopReason = "completed"
    called: bool = True
    asked: list[str] = []
    logprob: float | None = None
    confidence: float | None = None


def stop_reason_of(answer: Answer) -> StopReason:
    """Returns the stop reason that an answer's first finish reason means."""
    match answer.choices[0].finish_reason:
        case "length":
            return "length"
        case "tool_calls" | "function_call":
            return "tool_calls"
        case "content_filter":
            return "content_filter"
        case _:
            return "completed"


def call_usage(run: RunAttempt, delivery: int, end: CallEnd) -> AttemptUsage:
    """Returns the call as it is booked; delivery 0 says that there was none."""
    return AttemptUsage(
        number=run.attempt.number,
        delivery=delivery if end.called else 0,
        model=run.attempt.model,
        rank=run.attempt.rank,
        usage=end.usage,
        duration_ms=end.duration_ms,
        succeeded=end.error is None,
        error_code=end.error.code if end.error is not None else "",
        price_version=run.attempt.price_version,
    )


def settled(run: RunAttempt, delivery: int, end: CallEnd, now_ms: int) -> SettledMessage:
    """Returns the terminal message of a plan of one attempt."""
    canceled = end.stop_reason in ("canceled", "client_disconnected")
    calls = [*run.earlier, call_usage(run, delivery, end)] if end.called else run.earlier
    usage = reduce(add_usage, (call.usage for call in calls), Usage())
    charge = end.usage.charge_usd_picos if end.error is None or canceled else 0
    usage = msgspec.structs.replace(usage, charge_usd_picos=charge)
    shared: dict[str, Any] = {
        "task": run.task,
        "plan": run.attempt.plan,
        "stop_reason": end.stop_reason,
        "usage": usage,
        "attempts": calls,
        "settled_at_ms": now_ms,
        "model": run.attempt.model,
        "rank": run.attempt.rank,
        "route": run.route,
    }
    if canceled:
        return TaskCanceled(**shared, partial=end.output)
    if end.error is not None or end.output is None:
        error = end.error or TaskError(code="internal_error", message=f"task {run.task.id} ended without an answer")
        return TaskFailed(**shared, error=error, partial=end.output)
    turn = _turn(run)
    return TaskCompleted(**shared, output=end.output, turn=turn, confidence=end.confidence)


def _turn(run: RunAttempt) -> Envelope | None:
    """Returns the prompt where it is remembered or may be learned from; the latter never of what a rule has touched."""
    task = run.task
    return run.prompt if task.conversation or (task.collects_since_ms and task.gated is None) else None


def ended(run: RunAttempt, delivery: int, end: CallEnd, now_ms: int) -> AttemptEnded:
    """Returns the end of one member of a larger plan."""
    call = call_usage(run, delivery, end)
    if end.error is not None or end.output is None:
        error = end.error or TaskError(code="internal_error", message=f"task {run.task.id} ended without an answer")
        return AttemptFailed(
            task=run.task,
            attempt=run.attempt,
            error=error,
            call=call,
            at_ms=now_ms,
            earlier=run.earlier,
            route=run.route,
        )
    turn = _turn(run)
    return AttemptAnswered(
        task=run.task,
        attempt=run.attempt,
        answer=end.output,
        call=call,
        at_ms=now_ms,
        turn=turn,
        earlier=run.earlier,
        asked=end.asked,
        route=run.route,
        logprob=end.logprob,
    )


def retried(run: RunAttempt, delivery: int, end: CallEnd, not_before_ms: int, now_ms: int) -> AttemptRetried:
    """Returns what is stored of a try that failed and is made again."""
    assert end.error is not None, "only a failed try is made again"
    return AttemptRetried(
        task=run.task,
        attempt=run.attempt,
        try_number=run.try_number,
        error=end.error,
        not_before_ms=not_before_ms,
        at_ms=now_ms,
        call=call_usage(run, delivery, end) if end.called else None,
    )


def requested(run: RunAttempt, standing: AttemptRetried) -> AttemptRequested:
    """Returns what goes back to the router, from what stands of the failed try."""
    earlier = [*run.earlier, standing.call] if standing.call is not None else run.earlier
    return AttemptRequested(
        run=msgspec.structs.replace(run, earlier=earlier),
        error=standing.error,
        not_before_ms=standing.not_before_ms,
    )
