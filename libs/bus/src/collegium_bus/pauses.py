"""What a task waits for people for, and what they have said, as it stands in EVENTS.

One rule: one request reads all of it, so whatever it says stood there at one moment; where it does not hold the event
in hand, a broker's replica is behind, and it is asked again, until the event is taken to be gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import InputRequired, JourneyMessage, TaskInput
from collegium_contracts.people import QUESTIONS_MAX, STAGES, Given, Question, Resolution, Stage, resolve

from collegium_bus.claims import ClaimStore
from collegium_bus.direct import DirectReader, Stored
from collegium_bus.errors import GoneError

# How long a replica of the broker may be behind, in ever longer steps.
AGAIN_SECONDS: Final = (0.02, 0.1, 0.4, 1.5, 4.0)
_STAGES_DOWN: Final[tuple[Stage, ...]] = ("answer", "request")


class Waiting(NamedTuple):
    """A pause, its trace context, the answers to it by question, and whether its task has settled or is to end."""

    pause: InputRequired
    traceparent: str
    given: dict[str, TaskInput]
    is_settled: bool
    is_canceled: bool = False

    @property
    def open(self) -> list[Question]:
        """The questions that nobody has answered yet; none of a task that has settled."""
        return [] if self.is_settled else [one for one in self.pause.questions if one.id not in self.given]

    @property
    def resolution(self) -> Resolution:
        """What follows from the answers so far."""
        answers = {name: Given(one.decision, one.source, one.by, one.answer) for name, one in self.given.items()}
        return resolve(self.pause.stage, self.pause.questions, answers)


async def waiting(direct: DirectReader, claims: ClaimStore, tenant: str, task: str, here: str = "") -> Waiting | None:
    """Returns what a task waits, or waited, for last; none where it never did.

    ``here`` is the subject of an event that was handed over. Raises BusError where it cannot be read now, GoneError
    where that event stands no more, ContractError where what stands cannot be read at all.
    """
    subjects = [s.task_settled(tenant, task), s.cancel(tenant, task)]
    for stage in STAGES:
        subjects.append(s.task_paused(tenant, task, stage))
        subjects += [s.task_input(tenant, task, f"{stage}-{number}") for number in range(1, QUESTIONS_MAX + 1)]
    found: Mapping[str, Stored] = {}
    for again_seconds in (*AGAIN_SECONDS, None):
        found = await direct.newest(s.EVENTS, subjects)
        if not here or here in found:
            break
        if again_seconds is None:
            raise GoneError(f"{here} cannot be read back; it may have aged out, or its tenant been erased")
        await asyncio.sleep(again_seconds)
    for stage in _STAGES_DOWN:
        stored = found.get(s.task_paused(tenant, task, stage))
        if stored is None:
            continue
        pause = await _message(claims, stored)
        if not isinstance(pause, InputRequired):
            raise UndecodableMessageError(f"{type(pause).__name__} on {stored.subject}, where only a pause may stand")
        given: dict[str, TaskInput] = {}
        for question in pause.questions:
            answer = found.get(s.task_input(tenant, task, question.id))
            message = await _message(claims, answer) if answer is not None else None
            if isinstance(message, TaskInput):
                given[question.id] = message
        is_settled = s.task_settled(tenant, task) in found
        is_canceled = s.cancel(tenant, task) in found
        return Waiting(pause, stored.headers.get(s.TRACEPARENT, ""), given, is_settled, is_canceled)
    return None


async def _message(claims: ClaimStore, stored: Stored) -> JourneyMessage:
    claim = stored.headers.get(s.H_CLAIM)
    return codec.journey.decode(await claims.get(claim) if claim else stored.payload)
