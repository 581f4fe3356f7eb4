"""The messages by which the router carries out a plan: attempts to WORK, ends to EVENTS.

One rule: every message has an id made of the task, the attempt and the try, so that sending it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog
from collegium_bus.dead import Original
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.settle import settle, standing_failure
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.messages import (
    AttemptFailed,
    AttemptRef,
    AttemptRequested,
    RunAttempt,
    TaskDispatched,
    TaskFailed,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Price
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_router.choosing.lookups import Added
from collegium_router.choosing.members import sampling_of
from collegium_router.choosing.plan import MAX_CALLS, Planned, max_tokens
from collegium_router.dispatching.settlement import End
from collegium_router.queue.intake import Queued
from collegium_router.roster.fleet_models import Models

log = structlog.get_logger(__name__)

_FREE = Price()
# The capability of an endpoint that holds an answer to a JSON schema.
JSON_SCHEMA = "json_schema"


class Sender:
    """Publishes what was decided."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def dispatch(
        self, submitted: TaskSubmitted, planned: Planned, models: Models, added: Added, hop: Hop
    ) -> None:
        """Sends the attempts that a plan begins with, by the models it was made from, with what was looked up."""
        task = added.task(submitted.task)
        # Of those whose attempts end by themselves nothing is heard before consensus has settled them.
        is_several = planned.plan != "single" or task.people is not None or task.tests > 0
        if is_several:
            # Before its attempts: whoever hears of one's end finds what later ones are made from.
            await self._tell_begun(submitted, planned, added, hop)
        routes = planned.routes or [planned.route] * len(planned.attempts)
        for attempt, tokens, route in zip(_charged(task, planned.attempts), planned.tokens, routes, strict=True):
            model = models[attempt.model]
            sampling = submitted.sampling
            if is_several:
                sampling = sampling_of(sampling, attempt.number, planned.plan)
            run = RunAttempt(
                task=task,
                attempt=attempt,
                prompt=submitted.prompt,
                sampling=msgspec.structs.replace(sampling, max_tokens=max_tokens(sampling.max_tokens, model)),
                prompt_bytes=submitted.prompt_bytes + added.bytes + planned.instruction_bytes,
                history=added.history,
                notes=added.notes,
                max_calls=MAX_CALLS,
                alternatives=planned.alternatives,
                route=route,
                instruction=planned.instruction if task.probe is None else task.probe.instruction,
            )
            await self._send_attempt(run, tokens, hop)
        if not is_several and task.surface == "tasks" and task.not_before_ms:
            # Whoever is told again to release it must see that it went on.
            self._tell_dispatched(submitted, planned, hop)

    async def _send_attempt(self, run: RunAttempt, tokens: int, hop: Hop) -> None:
        task, attempt = run.task, run.attempt
        bound = {s.H_BOUND: str(tokens)} if tokens else {}
        await self._platform.publisher.publish(
            s.work(attempt.pool, task.priority),
            encode(run),
            message_id=f"{task.id}.{attempt.number}.{run.try_number}",
            headers={
                s.TRACEPARENT: hop.traceparent,
                s.H_TENANT: task.tenant,
                s.H_TASK: task.id,
                s.H_ATTEMPT: str(attempt.number),
                s.H_TRY: str(run.try_number),
                s.H_MODEL: attempt.model,
                s.H_POOL: attempt.pool,
                **bound,
            },
        )

    async def dispatch_again(self, more: AttemptRequested, planned: Planned, models: Models, hop: Hop) -> None:
        """Sends the next try of an attempt, or the first one of an attempt that consensus asked for."""
        run = more.run
        (attempt,) = _charged(run.task, planned.attempts)
        bound = max_tokens(run.sampling.max_tokens, models[attempt.model])
        sampling = run.sampling if more.error is not None else sampling_of(run.sampling, attempt.number, planned.plan)
        if attempt.judges and JSON_SCHEMA not in models[attempt.model].capabilities:
            # The judge is told in words what to write; an endpoint that knows no schemas may refuse one.
            sampling = msgspec.structs.replace(sampling, response_format=None)
        again = msgspec.structs.replace(
            run,
            attempt=attempt,
            sampling=msgspec.structs.replace(sampling, max_tokens=bound),
            try_number=run.try_number + 1,
            max_calls=MAX_CALLS,
            alternatives=planned.alternatives,
            route=planned.route or run.route,
        )
        await self._send_attempt(again, planned.tokens[0], hop)

    async def _tell_begun(self, submitted: TaskSubmitted, planned: Planned, added: Added, hop: Hop) -> None:
        """Stores what a plan of several is made from, for its later attempts and for whoever runs it again."""
        task = added.task(submitted.task)
        begun = msgspec.structs.replace(
            self._dispatched(submitted, planned, submitted),
            task=task,
            history=added.history,
            notes=added.notes,
            added_bytes=added.bytes,
            of=planned.of,
            ranks=list(planned.ranks),
        )
        await self._platform.publisher.publish(
            s.task_changed(task.tenant, task.id),
            encode(begun),
            message_id=f"{task.id}.dispatched",
            headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
        )

    def _tell_dispatched(self, submitted: TaskSubmitted, planned: Planned, hop: Hop) -> None:
        """Says that a task is being worked on. Not waited for: a task's state is told again by what follows."""
        task = submitted.task
        headers = {s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant, s.MESSAGE_ID: f"{task.id}.dispatched"}
        payload = encode(self._dispatched(submitted, planned, None))
        self._platform.publisher.tell(s.task_changed(task.tenant, task.id), payload, headers=headers)

    def _dispatched(self, submitted: TaskSubmitted, planned: Planned, kept: TaskSubmitted | None) -> TaskDispatched:
        return TaskDispatched(
            task=submitted.task,
            plan=planned.plan,
            models=[attempt.model for attempt in planned.attempts],
            at_ms=self._platform.now_ms(),
            submitted=kept,
        )

    async def end(self, queued: Queued, end: End, hop: Hop) -> None:
        """Settles a task, or ends a member of a larger plan; what had ended already stays as it ended."""
        if not isinstance(end, AttemptFailed):
            stored = await settle(self._platform.publisher, end, settler="router", traceparent=hop.traceparent)
            if isinstance(end, TaskFailed):
                failure = end if stored else await standing_failure(self._platform.direct, end.task)
                if failure is not None:
                    await self._platform.dead_letters.keep_failed(failure, _original(queued))
            return
        task, number = end.task, end.attempt.number
        try:
            await self._platform.publisher.publish(
                s.attempt_ended(task.tenant, task.id, number),
                encode(end),
                message_id=f"{task.id}.{number}.ended.router",
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                create_once=True,
            )
        except AlreadyStandsError:
            log.info("attempt had ended", task=task.id, attempt=number)

    async def is_settled(self, task: TaskRef) -> bool:
        """Whether a task's terminal message stands."""
        return await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None


def _charged(task: TaskRef, attempts: Sequence[AttemptRef]) -> Sequence[AttemptRef]:
    """Returns attempts at what their tenant is charged for them: what the operator asks for is not on its bill."""
    if task.probe is None or task.probe.account != "operator":
        return attempts
    return [msgspec.structs.replace(attempt, charge=_FREE) for attempt in attempts]


def _original(queued: Queued) -> Original:
    """Returns what a task that ended in the queue is made from again: its submission, or the attempt that failed."""
    message, task = queued.message, queued.task
    headers = {s.H_TENANT: task.tenant, s.TRACEPARENT: queued.traceparent}
    if isinstance(message, TaskSubmitted):
        return Original(queued.subject, encode(message), headers, s.INGRESS, queued.sequence)
    run = message.run
    return Original(s.work(run.attempt.pool, task.priority), encode(run), headers, s.INGRESS, queued.sequence)
