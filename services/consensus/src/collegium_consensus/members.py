"""The ended attempts of a task as they stand in EVENTS, in their order, and what they say.

One rule: who reads them sees at least everything that was stored before the event it was handed, or is told that it
does not; a broker's replica may be behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog
from collegium_bus.direct import Stored
from collegium_bus.errors import GoneError
from collegium_bus.events import EventOf
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.code_tests import TestState
from collegium_contracts.content import Answer, decode_answer
from collegium_contracts.envelope import Keyring, UnknownKeyError
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptEnded,
    AttemptFailed,
    AttemptTested,
    JourneyMessage,
    TaskRef,
)
from collegium_runtime.platform import Platform

from collegium_consensus.course import Seen

log = structlog.get_logger(__name__)

# How long a replica of the broker may be behind, in ever longer steps.
AGAIN_SECONDS: Final = (0.02, 0.1, 0.4, 1.5, 4.0)

Event = EventOf[JourneyMessage]


class Member(NamedTuple):
    """One ended attempt as it stands in EVENTS: its message, sequence and trace context.

    ``tested`` (none: it was not) is what tests of its task said; ``sequence`` is then that word's.
    """

    message: AttemptEnded
    sequence: int
    traceparent: str
    tested: AttemptTested | None = None

    @property
    def number(self) -> int:
        """The attempt's number."""
        return self.message.attempt.number


def known(events: Iterable[Event]) -> list[Member]:
    """Returns what events say, in the order of the stream; what tests said is told elsewhere.

    Raises UndecodableMessageError for any other message.
    """
    found: dict[int, Member] = {}
    for event in sorted(events, key=lambda event: event.sequence):
        message = event.message
        if isinstance(message, AttemptTested):
            continue
        if not isinstance(message, AttemptAnswered | AttemptFailed):
            raise UndecodableMessageError(
                f"{type(message).__name__} on {event.subject}, where only ended attempts may stand"
            )
        found.setdefault(message.attempt.number, Member(message, event.sequence, event.traceparent))
    return list(found.values())


async def standing(platform: Platform, task: TaskRef, of: int, here: Sequence[Member] = ()) -> list[Member]:
    """Returns all ended attempts of a task in the order of the stream, those that were handed over among them.

    Raises BusError where they cannot be read now, ContractError where one that stands cannot be read at all, GoneError
    where what was handed over stands no more.
    """
    subjects = [s.attempt_ended(task.tenant, task.id, number) for number in range(1, of + 1)]
    own = {s.attempt_ended(task.tenant, task.id, member.number) for member in here}
    for again_seconds in (*AGAIN_SECONDS, None):
        # One request, so one replica answers it: whatever it says stood there at one moment.
        found = await platform.direct.newest(s.EVENTS, subjects)
        if own <= found.keys():
            others = [await member_of(platform, stored) for subject, stored in found.items() if subject not in own]
            return sorted([*here, *others], key=lambda member: member.sequence)
        if again_seconds is not None:
            await asyncio.sleep(again_seconds)
    raise GoneError(f"task {task.id}: what ended cannot be read back; its tenant may have been erased")


async def member_of(platform: Platform, stored: Stored) -> Member:
    """Reads one stored end; raises ContractError where it cannot be read."""
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


def seen(members: Iterable[Member], keys: Mapping[int, str]) -> list[Seen]:
    """Returns what the course of a plan follows from, in the same order; ``keys`` are what answers say, by number."""
    return [
        Seen(
            member.number,
            member.message.attempt.model,
            keys.get(member.number),
            member.message.at_ms if member.tested is None else member.tested.at_ms,
            member.message.error.code if isinstance(member.message, AttemptFailed) else "",
            member.message.attempt.rank,
            None if isinstance(member.message, AttemptFailed) else member.message.logprob,
            _state_of(member),
            member.tested.passed if member.tested is not None else 0,
        )
        for member in members
    ]


def _state_of(member: Member) -> TestState | None:
    if member.tested is not None:
        return member.tested.state
    message = member.message
    is_late = message.task.tests and isinstance(message, AttemptAnswered) and not message.attempt.judges
    return "not_run" if is_late else None
