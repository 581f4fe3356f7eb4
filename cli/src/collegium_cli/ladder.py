"""The journey ladder of one task: what EVENTS holds of it, a rung a message. Pure.

One rule: contents stay sealed; the ladder shows who, when, what for, and how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from collegium_contracts.journey import HOPS, Hop
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptDiscarded,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    JourneyMessage,
    Message,
    Settled,
    TaskDispatched,
    TaskFailed,
    TextCheckpointed,
)
from collegium_contracts.money import picos_to_usd


class Rung(msgspec.Struct, frozen=True):
    """One message of a task: its hop, sequence, age since the task's creation, name, way, and what it says."""

    hop: int
    sequence: int
    age_ms: int
    message: str
    way: str
    says: str


def ladder(events: Sequence[tuple[int, int, JourneyMessage]]) -> list[Rung]:
    """Returns the rungs of a task's events (sequence, stored at Unix ms, message), in stream order."""
    created = next((message.task.created_at_ms for _, _, message in events if hasattr(message, "task")), 0)  # pyright: ignore[reportAttributeAccessIssue]
    rungs: list[Rung] = []
    for sequence, at_ms, message in sorted(events, key=lambda event: event[0]):
        name = type(message).__name__
        hop = _hop(name)
        way = f"{'/'.join(hop.senders)} → {', '.join(hop.receivers) or 'operator'}" if hop is not None else ""
        number = hop.number if hop is not None else 0
        rungs.append(Rung(number, sequence, max(0, at_ms - created), name, way, says(message)))
    return rungs


def _hop(name: str) -> Hop | None:
    return next((hop for hop in HOPS if name in hop.messages and hop.stream is not None), None)


def says(message: Message) -> str:
    """Returns what a message says, without its contents."""
    match message:
        case TaskDispatched():
            return f"plan {message.plan}: {', '.join(message.models)}"
        case AttemptStarted():
            attempt = message.attempt
            return f"attempt {attempt.number} of {attempt.of}, {attempt.model}, delivery {message.delivery}"
        case AttemptAnswered() | AttemptDiscarded():
            call = message.call
            cost = picos_to_usd(call.usage.cost_usd_picos)
            return f"attempt {call.number}, {call.model}, {call.duration_ms} ms, {cost} USD"
        case AttemptFailed():
            return f"attempt {message.call.number}, {message.call.model}: {message.error.code}"
        case TextCheckpointed():
            return f"attempt {message.attempt.number}, {message.chunks} chunks"
        case CancelRequested():
            return message.reason
        case Settled():
            return _settled(message)
        case _:
            return ""


def _settled(message: Settled) -> str:
    parts = [message.stop_reason, f"{message.model} ({message.rank})" if message.model else ""]
    parts.append(f"{picos_to_usd(message.usage.cost_usd_picos)} USD")
    parts.append(f"{message.usage.input_tokens}+{message.usage.output_tokens} tokens")
    if message.confidence is not None:
        parts.append(f"agreed {message.confidence:.0%}")
    if isinstance(message, TaskFailed):
        parts.append(message.error.code)
    return ", ".join(part for part in parts if part)


def table(rungs: Sequence[Rung]) -> str:
    """Returns the ladder as lines for people."""
    lines = [f"{'hop':>3} {'age ms':>8} {'seq':>7}  {'message':<18} says"]
    lines += [f"{rung.hop:>3} {rung.age_ms:>8} {rung.sequence:>7}  {rung.message:<18} {rung.says}" for rung in rungs]
    return "\n".join(lines)
