"""The ended attempts of a task as they stand in EVENTS, in their order, and what they say.

One rule: who reads them sees at least everything that was stored before the event it was handed, or is told that it
does not; a broker's replica may be behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog
from collegium_bus.direct import Stored
from collegium_bus.errors import NoAnswerError
from collegium_bus.events import EventOf
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, decode_answer
from collegium_contracts.envelope import Keyring, UnknownKeyError
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import AttemptAnswered, AttemptEnded, AttemptFailed, JourneyMessage, TaskRef
from collegium_runtime.platform import Platform

from collegium_consensus.course import Seen
from collegium_consensus.vote import vote

log = structlog.get_logger(__name__)

Event = EventOf[JourneyMessage]


class Member(NamedTuple):
    """One ended attempt as it stands in EVENTS: its message, sequence and trace context."""

    message: AttemptEnded
    sequence: int
    traceparent: str

    @property
    def number(self) -> int:
        """The attempt's number."""
        return self.message.attempt.number


def known(events: Iterable[Event]) -> list[Member]:
    """Returns what events say, in the order of the stream; raises UndecodableMessageError for any other message."""
    found: dict[int, Member] = {}
    for event in sorted(events, key=lambda event: event.sequence):
        message = event.message
        if not isinstance(message, AttemptAnswered | AttemptFailed):
            raise UndecodableMessageError(
                f"{type(message).__name__} on {event.subject}, where only ended attempts may stand"
            )
        found.setdefault(message.attempt.number, Member(message, event.sequence, event.traceparent))
    return list(found.values())


async def standing(platform: Platform, task: TaskRef, of: int, here: Sequence[Member] = ()) -> list[Member]:
    """Returns all ended attempts of a task in the order of the stream, those that were handed over among them.

    Raises BusError where they cannot be read now, ContractError where one that stands cannot be read at all.
    """
    # One request, so one replica answers it: whatever it says stood there at one moment.
    subjects = [s.attempt_ended(task.tenant, task.id, number) for number in range(1, of + 1)]
    found = await platform.direct.newest(s.EVENTS, subjects)
    for member in here:
        own = found.pop(s.attempt_ended(task.tenant, task.id, member.number), None)
        if own is None:
            raise NoAnswerError(f"task {task.id}: what ended as attempt {member.number} cannot be read back yet")
    others = [await _member(platform, stored) for stored in found.values()]
    return sorted([*here, *others], key=lambda member: member.sequence)


async def _member(platform: Platform, stored: Stored) -> Member:
    claim = stored.headers.get(s.H_CLAIM)
    message = codec.journey.decode(await platform.claims.get(claim) if claim else stored.payload)
    if not isinstance(message, AttemptAnswered | AttemptFailed):
        raise UndecodableMessageError(
            f"{type(message).__name__} on {stored.subject}, where only ended attempts may stand"
        )
    return Member(message, stored.sequence, stored.headers.get(s.TRACEPARENT, ""))


def opened(members: Iterable[Member], keyring: Keyring) -> dict[int, Answer]:
    """Returns the answers by attempt number; one that cannot be read is left out, and does not vote."""
    answers: dict[int, Answer] = {}
    for member in members:
        message = member.message
        if not isinstance(message, AttemptAnswered):
            continue
        try:
            answers[member.number] = decode_answer(keyring.open(message.task.tenant, message.answer))
        except (UnknownKeyError, msgspec.DecodeError, ValueError, RecursionError) as error:
            log.error("answer cannot be read", task=message.task.id, attempt=member.number, error=type(error).__name__)
    return answers


def seen(members: Iterable[Member], answers: Mapping[int, Answer]) -> list[Seen]:
    """Returns what the course of a plan follows from, in the same order."""
    keys = {number: vote(answer) for number, answer in answers.items()}
    return [
        Seen(
            member.number,
            member.message.attempt.model,
            keys.get(member.number),
            member.message.at_ms,
            member.message.error.code if isinstance(member.message, AttemptFailed) else "",
        )
        for member in members
    ]
