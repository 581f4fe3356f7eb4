"""Answers of people in; the task that goes on or its one settled message out.

Whoever is handed an answer reads the pause that it is to and all answers so far, and carries out what follows from
them; handed it again, or at the same time as another replica, it does the same, and the stream lets it stand once. A
task that is canceled while it waits is ended here. One rule: an event is acknowledged only after what follows from it
stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog
from collegium_bus.errors import BrokerUnavailableError, BusError, GoneError
from collegium_bus.events import EventOf
from collegium_bus.pauses import Waiting, waiting
from collegium_bus.schedules import ScheduleStream
from collegium_bus.settle import settle
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, decode_answer
from collegium_contracts.envelope import Envelope, UnknownKeyError, held
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import shard_of
from collegium_contracts.messages import CancelRequested, InputRequired, JourneyMessage, TaskInput, TaskSubmitted
from collegium_contracts.people import Open, Refused, Replaced, Resolution
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, received

from collegium_consensus.people.outcomes import canceled, feedback_on, outcome
from collegium_consensus.reading import Reading
from collegium_consensus.telemetry import INPUT_DESTINATION, SPAN_INPUT

log = structlog.get_logger(__name__)

AT_ONCE = 32
Event = EventOf[JourneyMessage]


class Inputs:
    """Carries on what people were asked about."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._reading = Reading(platform)
        self._schedules = ScheduleStream(platform.connection, platform.publisher)
        self._settler = f"consensus.{platform.connection.instance}"
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def handle(self, batch: Sequence[Event]) -> None:
        """Carries out what follows from every event; raises what the broker raised, to be handed the batch again."""
        for result in await asyncio.gather(*map(self._take, batch), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _take(self, event: Event) -> None:
        async with self._slots:
            try:
                match event.message:
                    case TaskInput():
                        await self._answered(event.message)
                    case CancelRequested():
                        await self._canceled(event.message)
                    case other:
                        detail = f"{type(other).__name__} on {event.subject}, where only answers of people may stand"
                        await self._bury(event, "undecodable_message", detail)
            except BusError:
                raise
            except (ContractError, GoneError) as error:
                # A letter, and no silence, also where it is gone: were a replica behind for longer, it can be requeued.
                await self._bury(event, error.code, str(error))
            except Exception as error:  # one answer that cannot be used must not stop all others
                log.error("an answer cannot be used", subject=event.subject, exc_info=error)
                await self._bury(event, "handler_failed", type(error).__name__)

    async def _answered(self, message: TaskInput) -> None:
        subject = s.task_input(message.tenant, message.task_id, message.question)
        found = await waiting(self._platform.direct, self._platform.claims, message.tenant, message.task_id, subject)
        if found is None or message.question not in found.given:
            # An answer to a pause that another one came after.
            return
        resolution = found.resolution
        if isinstance(resolution, Open):
            return
        with self._platform.tracing.hop(SPAN_INPUT, "consumer", found.traceparent) as hop:
            if hop.sampled:
                hop.describe(received(INPUT_DESTINATION) | about(found.pause))
            ended = None if found.is_settled else outcome(found.pause, resolution, self._platform.now_ms())
            failpoint("consensus.before-input")
            if isinstance(ended, TaskSubmitted):
                await self._release(ended, hop.traceparent)
            elif ended is not None:
                stored = await settle(
                    self._platform.publisher, ended, settler=self._settler, traceparent=hop.traceparent
                )
                log.info("people decided", task=message.task_id, stop_reason=ended.stop_reason, stored=stored)
            failpoint("consensus.after-input")
            # Again where the task had settled before: whoever did so may have been killed in between.
            await self._tell_evolution(found, resolution, hop.traceparent)

    async def _release(self, submitted: TaskSubmitted, traceparent: str) -> None:
        """Hands an approved task to the routers, who hold its money and queue it, at once or at its time."""
        task = submitted.task
        await self._schedules.put(
            s.schedule_task(task.tenant, task.id),
            codec.encode(submitted),
            at_ms=task.not_before_ms,
            shard=shard_of(task.tenant),
            headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
            message_id=f"{task.id}.released",
        )

    async def _tell_evolution(self, found: Waiting, resolution: Resolution, traceparent: str) -> None:
        """Tells what people made of the model's answer; telling it twice changes nothing."""
        pause = found.pause
        given = _decisive(found, resolution)
        if given is None or pause.verdict is None:
            return
        told = feedback_on(pause, given, is_same=await self._is_same(pause, given))
        if told is not None:
            await self._platform.publisher.publish(
                s.feedback(pause.task.tenant, pause.task.id),
                codec.encode(told),
                message_id=told.id,
                headers={s.TRACEPARENT: traceparent, s.H_TENANT: pause.task.tenant},
            )

    async def _is_same(self, pause: InputRequired, given: TaskInput) -> bool | None:
        """Whether a person's own answer says what the model's did, compared as votes; none where it cannot be told."""
        own = await self._opened(pause, given.answer)
        candidate = await self._opened(pause, pause.verdict.output) if pause.verdict is not None else None
        if own is None or candidate is None:
            return None
        shape = (await self._reading.wanted(pause.task)).shape
        keys = await self._reading.keys(pause.task, shape, {1: candidate, 2: own})
        return bool(keys[1]) and keys[1] == keys[2]

    async def _opened(self, pause: InputRequired, envelope: Envelope | None) -> Answer | None:
        if envelope is None:
            return None
        keyring, tenant = self._platform.keyring, pause.task.tenant
        await held(keyring, tenant, envelope)
        try:
            return decode_answer(keyring.open(tenant, envelope))
        except (UnknownKeyError, msgspec.DecodeError, ValueError, RecursionError) as error:
            log.error("answer cannot be read", task=pause.task.id, error=type(error).__name__)
            return None

    async def _canceled(self, message: CancelRequested) -> None:
        subject = s.cancel(message.tenant, message.task_id)
        found = await waiting(self._platform.direct, self._platform.claims, message.tenant, message.task_id, subject)
        if found is None or found.is_settled or not isinstance(found.resolution, Open):
            # It is whoever's it was released to, or it settles by what people said.
            return
        ended = canceled(found.pause, self._platform.now_ms())
        await settle(self._platform.publisher, ended, settler=self._settler, traceparent=found.traceparent)

    async def _bury(self, event: Event, cause: str, detail: str) -> None:
        if not await self._platform.dead_letters.bury(event.delivery, cause, detail):
            raise BrokerUnavailableError(f"event {event.sequence} can neither be used nor dead-lettered now")


def _decisive(found: Waiting, resolution: Resolution) -> TaskInput | None:
    """Returns the answer that decided, or the first that a person gave where all agreed."""
    if isinstance(resolution, Replaced | Refused):
        return found.given.get(resolution.question.id)
    people = (found.given[one.id] for one in found.pause.questions if one.id in found.given)
    return next((one for one in people if one.decision != "expire"), None)
