"""Calls whose worker died: what is known of them is their last checkpoint, and that is what is booked.

Where the task is canceled or late before another worker takes it up, the checkpoint is its end, and what a canceled
task had generated is charged; where the call is made again, the lost one is a cost of the operator's. A call that left
no checkpoint stays possible spend. One rule: a lost call is booked under its own number, so that its worker, should it
live, changes nothing.
"""

from __future__ import annotations

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.codec import journey
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptStarted, RunAttempt, TextCheckpointed
from collegium_runtime.platform import Platform

from collegium_worker_pool.calling.outcome import CallEnd
from collegium_worker_pool.upstream.counting import count_prompt, count_tokens
from collegium_worker_pool.upstream.metering import estimate
from collegium_worker_pool.upstream.wire import output_bound

# Ends of an attempt that was not called again, which a lost call's text belongs to.
_ENDS = ("canceled", "client_disconnected", "deadline")


class LostCall(msgspec.Struct, frozen=True):
    """A call that was begun and of which nobody tells the end: its number, and its end as far as it is known."""

    delivery: int
    end: CallEnd


async def lost_calls(platform: Platform, run: RunAttempt) -> list[LostCall]:
    """Returns the calls of this try that left a checkpoint, oldest first. Raises BusError where it cannot be read.

    To be asked for by whoever takes an attempt up again; then none of them is known to have ended.
    """
    task, number = run.task, run.attempt.number
    subject = s.attempt_checkpoint(task.tenant, task.id, number)
    ended = run.earlier[-1].delivery if run.earlier else 0
    newest: dict[int, TextCheckpointed] = {}
    sequence = 0
    while (stored := await platform.direct.following(s.EVENTS, subject, sequence)) is not None:
        sequence = stored.sequence
        message = journey.decode(stored.payload)
        if isinstance(message, TextCheckpointed) and message.delivery > ended:
            newest[message.delivery] = message
    return [LostCall(delivery, await _end(platform, run, newest[delivery])) for delivery in sorted(newest)]


def ended_by(early: CallEnd, lost: list[LostCall]) -> CallEnd:
    """Returns how an attempt ends that is not called again: with the text and the usage of its newest lost call."""
    if not lost or early.called or early.stop_reason not in _ENDS:
        return early
    return _with(early, lost[-1].end)


def given_up(failed: CallEnd, lost: list[LostCall]) -> CallEnd:
    """Returns how an attempt ends that nobody takes up again, whatever the reason."""
    return _with(failed, lost[-1].end) if lost else failed


def _with(end: CallEnd, lost: CallEnd) -> CallEnd:
    return msgspec.structs.replace(end, usage=lost.usage, output=lost.output, duration_ms=lost.duration_ms, called=True)


async def _end(platform: Platform, run: RunAttempt, last: TextCheckpointed) -> CallEnd:
    task, keyring = run.task, platform.keyring
    subject = s.attempt_started(task.tenant, task.id, run.attempt.number, last.delivery)
    stored = await platform.direct.last(s.EVENTS, subject)
    started = journey.decode(stored.payload) if stored is not None else None
    began_ms = started.at_ms if isinstance(started, AttemptStarted) else last.at_ms
    text = keyring.open(task.tenant, last.text).decode()
    prompt = count_prompt(keyring.open(task.tenant, run.prompt))
    if run.history is not None:
        prompt += count_prompt(keyring.open(task.tenant, run.history))
    prompt += sum(count_tokens(keyring.open(task.tenant, note).decode()) for note in run.notes)
    return CallEnd(
        usage=estimate(last.attempt, prompt, count_tokens(text), bound=output_bound(run), pieces=last.chunks),
        duration_ms=max(0, last.at_ms - began_ms),
        output=keyring.seal(task.tenant, encode_content(Answer([Choice(text, "stop", None)]))),
        error=TaskError(code="internal_error", message=f"the worker of attempt {run.attempt.number} was lost"),
        stop_reason="failed",
    )
