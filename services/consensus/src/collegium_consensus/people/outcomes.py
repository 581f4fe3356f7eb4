"""What follows from what people said: the message that ends a task, or the task that is released. Pure.

    request  ── all agree ──► released, its time counts from now
             ── a no ───────► rejected              ── nobody ──► failed, or rejected
    answer   ── all agree ──► the verdict           ── an answer of a person's own ──► that one, in their name
             ── a no ───────► rejected              ── nobody ──► failed, the verdict, or rejected

What was called for an answer that does not leave is cost and no charge; a task that its client ends is charged what it
used. One rule: the same pause and the same answers give the same end.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from collegium_contracts import ids
from collegium_contracts.errors import TaskError
from collegium_contracts.feedback import Feedback
from collegium_contracts.messages import (
    InputRequired,
    SettledMessage,
    StopReason,
    TaskCanceled,
    TaskFailed,
    TaskInput,
    TaskSubmitted,
)
from collegium_contracts.money import Usage
from collegium_contracts.people import PERSON, Expired, Open, Proceed, Question, Refused, Replaced, Resolution

_DENIED = "approval_denied"
_EXPIRED = "input_expired"


def outcome(pause: InputRequired, resolution: Resolution, now_ms: int) -> SettledMessage | TaskSubmitted | None:
    """Returns what a pause comes to: the end of its task, the task that is released, or none as long as it waits."""
    match resolution:
        case Open():
            return None
        case Proceed():
            return released(pause, now_ms) if pause.stage == "request" else _verdict(pause, now_ms)
        case Replaced():
            return _replaced(pause, resolution, now_ms)
        case Refused():
            return _ended(pause, "denied", _denial(pause, resolution), now_ms)
        case Expired():
            if resolution.best:
                return _verdict(pause, now_ms)
            return _ended(pause, "expired", _expiry(pause, resolution.question), now_ms)


def released(pause: InputRequired, now_ms: int) -> TaskSubmitted | None:
    """Returns an approved task as it is scheduled: at once, or at its own time; it is as long as it was given."""
    submitted = pause.submitted
    if submitted is None:
        return None
    task = submitted.task
    length_ms = task.deadline_ms - max(task.created_at_ms, task.not_before_ms)
    begins_ms = max(now_ms, task.not_before_ms)
    people = task.people
    left = msgspec.structs.replace(people, before=[]) if people is not None and people.at_answer else None
    task = msgspec.structs.replace(
        task, not_before_ms=begins_ms, deadline_ms=begins_ms + length_ms, people=left, reply=""
    )
    return msgspec.structs.replace(submitted, task=task)


def canceled(pause: InputRequired, now_ms: int) -> TaskCanceled:
    """Returns the end of a task that its client canceled while it waited for people.

    What was produced is its partial output where nobody but the client had to agree to it.
    """
    verdict = pause.verdict
    shared = _shared(pause, now_ms, verdict.usage if verdict is not None else Usage())
    is_clients = all(one.of == "client" for one in pause.questions)
    partial = verdict.output if verdict is not None and is_clients else None
    return TaskCanceled(**shared, stop_reason="canceled", partial=partial)


def feedback_on(pause: InputRequired, given: TaskInput, *, is_same: bool | None) -> Feedback | None:
    """Returns what an answer by a person says of the model whose verdict it was asked about, none where nothing.

    An approval is right, a no is wrong, and an answer of one's own is right where it says the same (``is_same``; none
    where that cannot be told).
    """
    verdict = pause.verdict
    if verdict is None or given.decision == "expire" or not verdict.model:
        return None
    is_right = is_same if given.decision == "answer" else given.decision == "approve"
    if is_right is None:
        return None
    score = float(is_right)
    entropy = hashlib.sha256(f"{given.task_id}\x00{given.question}".encode()).digest()[:10]
    return Feedback(
        id=ids.feedback_id(given.at_ms, entropy),
        task=pause.task,
        source="person",
        score=score,
        at_ms=given.at_ms,
        plan=verdict.plan,
        model=verdict.model,
        rank=verdict.rank,
        by=given.by,
        comment=given.comment,
    )


def _verdict(pause: InputRequired, now_ms: int) -> SettledMessage | None:
    verdict = pause.verdict
    return msgspec.structs.replace(verdict, settled_at_ms=now_ms) if verdict is not None else None


def _replaced(pause: InputRequired, by: Replaced, now_ms: int) -> SettledMessage | None:
    verdict = pause.verdict
    if verdict is None:
        return None
    charge = verdict.usage.charge_usd_picos + by.question.price_picos
    return msgspec.structs.replace(
        verdict,
        output=by.answer,
        model=f"{PERSON}:{by.question.queue}" if by.question.queue else PERSON,
        rank=PERSON,
        confidence=None,
        stop_reason="answered_by_person",
        usage=msgspec.structs.replace(verdict.usage, charge_usd_picos=charge),
        settled_at_ms=now_ms,
    )


def _ended(pause: InputRequired, reason: StopReason, error: TaskError, now_ms: int) -> TaskFailed:
    usage = pause.verdict.usage if pause.verdict is not None else Usage()
    shared = _shared(pause, now_ms, msgspec.structs.replace(usage, charge_usd_picos=0))
    return TaskFailed(**shared, stop_reason=reason, error=error)


def _shared(pause: InputRequired, now_ms: int, usage: Usage) -> dict[str, Any]:
    verdict = pause.verdict
    return {
        "task": pause.task,
        "plan": verdict.plan if verdict is not None else pause.task.plan,
        "usage": usage,
        "attempts": verdict.attempts if verdict is not None else [],
        "settled_at_ms": now_ms,
        "model": verdict.model if verdict is not None else "",
        "rank": verdict.rank if verdict is not None else "",
    }


def _denial(pause: InputRequired, refused: Refused) -> TaskError:
    what = "its request" if pause.stage == "request" else "its answer"
    who = "nobody in time, which means no" if refused.given.decision == "expire" else "whoever was asked"
    return TaskError(
        code=_DENIED,
        message=f"task {pause.task.id}: {what} was not approved by {who}",
        gate=refused.question.rule or None,
    )


def _expiry(pause: InputRequired, question: Question) -> TaskError:
    whom = f"queue {question.queue}" if question.queue else "its client"
    return TaskError(code=_EXPIRED, message=f"task {pause.task.id}: {whom} was asked and did not answer in time")
