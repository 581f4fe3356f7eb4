"""Ended attempts in, one settled message out.

Nothing is remembered between events: the handler of a task's last ended attempt reads the others from EVENTS, decides,
and settles create-once. Every earlier one finds that some are missing, or that a later one stands whose own event will
come, and leaves it at that. One rule: an event is acknowledged only after the settled message stands, or after it was
plain that another event will bring it about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import structlog
from collegium_bus.errors import BrokerUnavailableError, BusError
from collegium_bus.events import EventOf
from collegium_bus.settle import settle, standing_failure
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, decode_answer
from collegium_contracts.envelope import UnknownKeyError, held
from collegium_contracts.errors import ContractError, UndecodableMessageError
from collegium_contracts.messages import AttemptAnswered, AttemptEnded, AttemptFailed, JourneyMessage, TaskFailed
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_consensus.inputs import input_of
from collegium_consensus.telemetry import DESTINATION, SPAN_DECIDE
from collegium_consensus.verdict import decide

log = structlog.get_logger(__name__)

# Tasks of one batch that are decided at the same time: each reads a few messages, so this many fill a round trip.
CONCURRENT_TASKS = 32

Event = EventOf[JourneyMessage]


class Member(NamedTuple):
    """One ended attempt as it stands in EVENTS: its message, sequence and trace context."""

    message: AttemptEnded
    sequence: int
    traceparent: str


class Verdicts:
    """Decides panels."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        # Unique to this process, so that a lost acknowledgement can be told from another replica's settlement.
        self._settler = f"consensus.{platform.connection.instance}"
        self._slots = asyncio.Semaphore(CONCURRENT_TASKS)

    async def handle(self, batch: Sequence[Event]) -> None:
        """Settles every panel that is complete; raises what the broker raised, to be handed the batch again."""
        by_task: dict[str, list[Event]] = {}
        for event in batch:
            by_task.setdefault(_task_of(event), []).append(event)
        results = await asyncio.gather(*map(self._task, by_task.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _task(self, events: Sequence[Event]) -> None:
        async with self._slots:
            try:
                await self._judge(events)
            except BusError:
                raise
            except ContractError as error:
                await self._bury(events, error.code, str(error))
            except Exception as error:  # one task that cannot be judged must not stop the verdicts of all others
                log.error("panel cannot be judged", task=_task_of(events[0]), exc_info=error)
                await self._bury(events, "handler_failed", type(error).__name__)

    async def _judge(self, events: Sequence[Event]) -> None:
        known = _known(events)
        if not known:
            return
        any_message = next(iter(known.values())).message
        if any_message.attempt.plan != "panel":
            return
        newest_here = max(member.sequence for member in known.values())
        missing = [number for number in range(1, any_message.attempt.of + 1) if number not in known]
        found = await asyncio.gather(*(self._standing(any_message, number) for number in missing))
        if None in found:
            return
        members = [*known.values(), *(member for member in found if member is not None)]
        last = max(members, key=lambda member: member.sequence)
        if last.sequence > newest_here:
            return
        failed = await self._settle(members, last.traceparent)
        if failed is not None:
            kept = await input_of(self._platform, failed.task)
            await self._platform.dead_letters.keep_failed(failed, kept or events[0].delivery)

    async def _settle(self, members: Sequence[Member], traceparent: str) -> TaskFailed | None:
        """Settles the task; returns its terminal message where it stands as failed, by whoever."""
        messages = [member.message for member in members]
        task = messages[0].task
        answers = [message.answer for message in messages if isinstance(message, AttemptAnswered)]
        await held(self._platform.keyring, task.tenant, *answers)
        hop = self._platform.tracing.hop(
            SPAN_DECIDE, "consumer", traceparent, {names.MESSAGING_DESTINATION: DESTINATION}
        )
        with hop:
            settled = decide(messages, self._answers(messages), self._platform.now_ms())
            if hop.sampled:
                hop.set(names.TENANT, task.tenant)
                hop.set(names.TASK, task.id)
                hop.set(names.PLAN, settled.plan)
                hop.set(names.RANK, settled.rank)
            failpoint("consensus.before-settle")
            stored = await settle(self._platform.publisher, settled, settler=self._settler, traceparent=hop.traceparent)
            failpoint("consensus.after-settle")
        if not isinstance(settled, TaskFailed):
            return None
        return settled if stored else await standing_failure(self._platform.direct, task)

    async def _standing(self, of: AttemptEnded, number: int) -> Member | None:
        """Reads one member from EVENTS, or none where it has not ended."""
        subject = s.attempt_ended(of.task.tenant, of.task.id, number)
        stored = await self._platform.direct.last(s.EVENTS, subject)
        if stored is None:
            return None
        message = codec.journey.decode(stored.payload)
        if not isinstance(message, AttemptAnswered | AttemptFailed):
            raise UndecodableMessageError(f"{type(message).__name__} on {subject}, where only ended attempts may stand")
        return Member(message, stored.sequence, stored.headers.get(s.TRACEPARENT, ""))

    def _answers(self, members: Sequence[AttemptEnded]) -> dict[int, Answer]:
        """Opens the answers; one that cannot be read does not vote."""
        answers: dict[int, Answer] = {}
        for member in members:
            if not isinstance(member, AttemptAnswered):
                continue
            task, number = member.task, member.attempt.number
            try:
                answers[number] = decode_answer(self._platform.keyring.open(task.tenant, member.answer))
            except (UnknownKeyError, msgspec.DecodeError, ValueError, RecursionError) as error:
                log.error("answer cannot be read", task=task.id, attempt=number, error=type(error).__name__)
        return answers

    async def _bury(self, events: Sequence[Event], cause: str, detail: str) -> None:
        for event in events:
            if not await self._platform.dead_letters.bury(event.delivery, cause, detail):
                raise BrokerUnavailableError(f"event {event.sequence} can neither be judged nor dead-lettered now")


def _task_of(event: Event) -> str:
    message = event.message
    # Anything else is buried by itself, under a name that no task has.
    return message.task.id if isinstance(message, AttemptAnswered | AttemptFailed) else f"event {event.sequence}"


def _known(events: Sequence[Event]) -> dict[int, Member]:
    known: dict[int, Member] = {}
    for event in events:
        message = event.message
        if not isinstance(message, AttemptAnswered | AttemptFailed):
            raise UndecodableMessageError(
                f"{type(message).__name__} on {event.subject}, where only ended attempts may stand"
            )
        known[message.attempt.number] = Member(message, event.sequence, event.traceparent)
    return known
