"""The journey ladder of one task: what EVENTS holds of it, a rung a message. Pure.

One rule: contents stay sealed; the ladder shows who, when, what for, and how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collegium_contracts.journey import HOPS, Hop
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptAsked,
    AttemptDiscarded,
    AttemptFailed,
    AttemptRetried,
    AttemptStarted,
    AttemptTested,
    CancelRequested,
    Feedback,
    InputRequired,
    JourneyMessage,
    Message,
    ProbeCompared,
    Settled,
    TaskDispatched,
    TaskFailed,
    TaskInput,
    TextCheckpointed,
)
from collegium_contracts.money import picos_to_usd
from collegium_contracts.routing import REASONS, Route

# Why one more attempt was asked for.
_WHY = {"confidence": "not confident enough", "disagreement": "no agreement", "failure": "no answer"}
# Why an answer did not pass its tests, or was not run.
_NOTES = {
    "differs": "it gave something else",
    "raised": "it raised an exception",
    "no_code": "no code in the answer",
    "syntax": "it is no Python",
    "time": "it took too long",
    "memory": "it took too much memory",
    "lacks": "could not be run: the interpreter lacks what it uses, compared as text",
    "long": "could not be run: longer than what is run, compared as text",
    "crashed": "could not be run: no interpreter held it, compared as text",
    "busy": "could not be run: too many of its tenant's answers waited, compared as text",
    "late": "not run: time was over, compared as text",
}


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a task: its hop, sequence, age since the task's creation, name, way, and what it says.

    ``attempt`` is 0, and model, rank, ``cost_usd`` and verdict are empty, where the message does not say them; the
    verdict is how an attempt or the task ended. ``age_ms`` is none where it is not known.
    """

    hop: int
    sequence: int
    age_ms: int | None
    message: str
    way: str
    attempt: int = 0
    model: str = ""
    rank: str = ""
    cost_usd: str = ""
    verdict: str = ""
    says: str = ""


def ladder(events: Sequence[tuple[int, int, JourneyMessage]]) -> list[Rung]:
    """Returns the rungs of a task's events (sequence, stored at Unix ms, message), in stream order."""
    created = next((message.task.created_at_ms for _, _, message in events if hasattr(message, "task")), 0)  # pyright: ignore[reportAttributeAccessIssue]
    return [
        _rung(sequence, max(0, at_ms - created), message)
        for sequence, at_ms, message in sorted(events, key=lambda event: event[0])
    ]


def _rung(sequence: int, age_ms: int, message: JourneyMessage) -> Rung:
    name = type(message).__name__
    rung = rung_of(name, age_ms, sequence)
    return msgspec.structs.replace(rung, **_columns(message), says=says(message))


def rung_of(name: str, age_ms: int | None, sequence: int = 0) -> Rung:
    """Returns the rung of a message of a name, with its hop and way alone."""
    hop = _hop(name)
    way = f"{'/'.join(hop.senders)} → {', '.join(hop.receivers) or 'operator'}" if hop is not None else ""
    return Rung(hop=hop.number if hop is not None else 0, sequence=sequence, age_ms=age_ms, message=name, way=way)


def _columns(message: Message) -> dict[str, int | str]:
    match message:
        case TaskDispatched():
            return {"model": ", ".join(dict.fromkeys(message.models))}
        case AttemptAsked():
            return {"attempt": message.number, "rank": message.rank}
        case AttemptStarted() | TextCheckpointed():
            attempt = message.attempt
            return {"attempt": attempt.number, "model": attempt.model, "rank": attempt.rank}
        case AttemptAnswered() | AttemptFailed() | AttemptDiscarded():
            call = message.call
            cost = picos_to_usd(call.usage.cost_usd_picos)
            about: dict[str, int | str] = {"attempt": call.number, "model": call.model, "rank": call.rank}
            return {**about, "cost_usd": cost, "verdict": _ended(message)}
        case AttemptTested():
            attempt = message.attempt
            about = {"attempt": attempt.number, "model": attempt.model, "rank": attempt.rank}
            return {**about, "verdict": f"tests {message.state.replace('_', ' ')}"}
        case AttemptRetried():
            attempt, call = message.attempt, message.call
            cost = picos_to_usd(call.usage.cost_usd_picos) if call is not None else ""
            told = {"attempt": attempt.number, "model": attempt.model, "rank": attempt.rank}
            return {**told, "cost_usd": cost, "verdict": message.error.code}
        case Settled():
            cost = picos_to_usd(message.usage.cost_usd_picos)
            return {"model": message.model, "rank": message.rank, "cost_usd": cost, "verdict": message.stop_reason}
        case CancelRequested():
            return {"verdict": message.reason}
        case TaskInput():
            return {"verdict": message.decision}
        case ProbeCompared():
            verdict = {True: "same", False: "different", None: "nothing said"}[message.same]
            return {"model": message.probe_model, "rank": message.probe_rank, "verdict": verdict}
        case Feedback():
            return {"model": message.model, "rank": message.rank, "verdict": f"{message.score:g}"}
        case _:
            return {}


def _ended(message: AttemptAnswered | AttemptFailed | AttemptDiscarded) -> str:
    match message:
        case AttemptAnswered():
            return "answered"
        case AttemptFailed():
            return message.error.code
        case AttemptDiscarded():
            return "discarded"


def _hop(name: str) -> Hop | None:
    return next((hop for hop in HOPS if name in hop.messages and hop.stream is not None), None)


def says(message: Message) -> str:
    """Returns what a message says, without its contents."""
    match message:
        case TaskDispatched():
            return _begun(message)
        case AttemptAsked():
            return _asked(message)
        case AttemptStarted():
            return f"of {message.attempt.of}, delivery {message.delivery}"
        case AttemptAnswered() | AttemptFailed() | AttemptDiscarded():
            usage = message.call.usage
            told = f"{message.call.duration_ms} ms, {usage.input_tokens}+{usage.output_tokens} tokens"
            route = None if isinstance(message, AttemptDiscarded) else message.route
            return told if route is None else f"{told}; {why(route)}"
        case AttemptTested():
            return tested(message)
        case AttemptRetried():
            return f"try {message.try_number}, the next in {max(0, message.not_before_ms - message.at_ms)} ms"
        case TextCheckpointed():
            return f"{message.chunks} chunks"
        case Settled():
            return _settled(message)
        case InputRequired():
            asked = (
                f"{one.id} {one.queue or one.of}{f' ({one.rule})' if one.rule else ''}" for one in message.questions
            )
            return f"before {'it begins' if message.stage == 'request' else 'its answer leaves'}: {', '.join(asked)}"
        case TaskInput():
            return f"{message.question} by {message.by or 'the clock'} ({message.source})"
        case ProbeCompared():
            return (
                f"{message.kind} of {message.task.id}, answered by {message.model}, compared as {message.answer_type}"
            )
        case Feedback():
            return f"by {message.source}"
        case _:
            return ""


def _begun(message: TaskDispatched) -> str:
    first, reason = len(message.models), message.task.plan_reason
    why = f"; chosen by the platform: {REASONS.get(reason, reason)}" if reason else ""
    if message.of > first:
        return f"plan {message.plan}, {first} of at most {message.of} attempts at first{why}"
    return f"plan {message.plan}, {first} attempt(s){why}"


def _asked(message: AttemptAsked) -> str:
    told = {
        "confidence": "not confident enough",
        "disagreement": "no agreement",
        "failure": "no answer",
        "judging": "judged by others",
        "tests": "no answer passed the tests",
    }[message.reason]
    if message.confidence is not None:
        told += f", confidence {message.confidence:.0%}"
    if message.threshold is not None:
        told += f", wanted {message.threshold:.0%}"
    return told


def tested(message: AttemptTested) -> str:
    """Returns what tests said of an answer, and why it did not pass, in words."""
    told = f"{message.passed} of {message.of} tests passed in {message.duration_ms} ms"
    return f"{told}; {_NOTES[message.note]}" if message.note else told


def _settled(message: Settled) -> str:
    parts = [f"plan {message.plan}", f"{message.usage.input_tokens}+{message.usage.output_tokens} tokens"]
    if message.confidence is not None:
        parts.append(f"confidence {message.confidence:.0%}")
        policy = message.evidence.policy if message.evidence is not None else ""
        parts.append(f"calibrated by {policy}" if policy else "a stated prior")
    if isinstance(message, TaskFailed):
        parts.append(message.error.code)
    told = ", ".join(part for part in parts if part)
    return told if message.route is None else f"{told}; {why(message.route)}"


def why(route: Route) -> str:
    """Returns why a model was chosen, in words."""
    told = "; ".join(REASONS.get(code, code) for code in route.reasons) or "chosen by the router"
    about = [f"{route.policy_of} policy {route.policy_version}"] if route.policy_version else []
    if route.domain:
        about.append(f"domain {route.domain}")
    if route.quality is not None:
        about.append(f"expected {route.quality:.0%}")
    if route.gain:
        about.append(f"{route.gain:+.1%} by the best")
    if route.propensity < 1:
        about.append(f"chance {route.propensity:.2g}")
    if route.trial is not None:
        about.append(f"{route.trial.arm} of {route.trial.id}")
    return f"why {route.model}: {told}" + (f" ({', '.join(about)})" if about else "")
