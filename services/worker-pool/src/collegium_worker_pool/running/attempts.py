"""Running one attempt: started, the call, the end, in that order, each stored before the next.

The order is the guarantee: AttemptStarted stands before the endpoint is called (so every call is at least listed), the
result stands before the message is acknowledged (so a killed worker's attempt comes again), and both are create-once
(so a late result of a stopped worker is refused by the stream itself). A try that failed and may be made again ends
create-once too, and goes back to the router. One rule: a call that was made is always booked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import AlreadyStandsError, QueueFullError
from collegium_bus.settle import settle, standing_failure
from collegium_bus.work import WorkLoop
from collegium_contracts import subjects as s
from collegium_contracts.callnote import write_note
from collegium_contracts.charging import billed_of
from collegium_contracts.codec import encode, journey
from collegium_contracts.errors import ContractError, TaskError, UndecodableMessageError
from collegium_contracts.holds import billed_header
from collegium_contracts.ids import shard_of
from collegium_contracts.journey import template
from collegium_contracts.messages import (
    AttemptDiscarded,
    AttemptRetried,
    AttemptStarted,
    RunAttempt,
    StopReason,
    TaskDispatched,
    TaskFailed,
)
from collegium_contracts.money import Usage
from collegium_contracts.plans import settles
from collegium_contracts.testsnote import write_until
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, received
from collegium_telemetry import names
from collegium_telemetry.hop import Hop

from collegium_worker_pool.calling.calling import Caller
from collegium_worker_pool.calling.cancels import Cancels
from collegium_worker_pool.calling.outcome import CallEnd, call_usage, ended, requested, retried, settled
from collegium_worker_pool.endpoints.breakers import Breakers
from collegium_worker_pool.running.lost import LostCall, ended_by, given_up, lost_calls
from collegium_worker_pool.running.retrying import is_heard, next_try_ms
from collegium_worker_pool.upstream import failures

log = structlog.get_logger(__name__)

DESTINATION = template("RunAttempt")
# A second copy of a message may find the first copy's AttemptStarted under its own delivery number; it takes the next.
MAX_COPIES = 16
# Most tasks of a fast model are over before; a state that nobody could have seen costs as much as one that is shown.
WORKING_AFTER_SECONDS = 0.1


class AttemptRunner:
    """Handles the RunAttempt messages of the pools."""

    def __init__(self, platform: Platform, caller: Caller, cancels: Cancels, breakers: Breakers) -> None:
        self._platform = platform
        self._caller = caller
        self._cancels = cancels
        self._breakers = breakers
        self._worker = platform.connection.instance
        # What runs here now, by task, attempt and try; a copy of it that arrives meanwhile waits for its end.
        self._running: dict[tuple[str, int, int], asyncio.Future[None]] = {}
        self._begun = itertools.count(1)
        self.loops: dict[str, WorkLoop] = {}

    async def handle(self, delivery: Delivery) -> None:
        """Runs one attempt and acknowledges its message."""
        claim = delivery.header(s.H_CLAIM)
        run = journey.decode(await self._platform.claims.get(claim) if claim else delivery.payload)
        if not isinstance(run, RunAttempt):
            raise UndecodableMessageError(
                f"{type(run).__name__} on {delivery.subject}, where only RunAttempt may stand"
            )
        failpoint("worker-pool.after-claim")
        if (loop := self.loops.get(run.attempt.pool)) is not None:
            loop.extend_until(delivery, run.task.deadline_ms)
        hop = self._hop("worker-pool run attempt", run, delivery)
        try:
            with hop:
                await self._run_alone(run, delivery, hop)
        except QueueFullError as error:
            # The tenant's queue has no place for another try now; what ended the try stands.
            log.info("attempt not handed back yet", task=run.task.id, error=str(error))
            delivery.nak(random.uniform(0.5, 5.0))  # noqa: S311 - jitter
            return
        failpoint("worker-pool.before-ack")
        delivery.ack()

    async def give_up(self, delivery: Delivery, error: Exception) -> None:
        """Ends an attempt whose handling failed on its last delivery, so that its task does not wait for ever.

        Raises BusError where the end could not be stored.
        """
        claim = delivery.header(s.H_CLAIM)
        try:
            run = journey.decode(await self._platform.claims.get(claim) if claim else delivery.payload)
            if not isinstance(run, RunAttempt):
                return
            text = f"attempt {run.attempt.number} of task {run.task.id} failed {delivery.delivered} times in the worker"
            failed = TaskError(
                code="attempts_exhausted", message=f"{text} ({type(error).__name__}); see its dead letter"
            )
            end = CallEnd(usage=Usage(), duration_ms=0, error=failed, stop_reason="failed", called=False)
            with self._hop("worker-pool give up", run, delivery) as hop:
                lost = await lost_calls(self._platform, run)
                number = lost[-1].delivery if lost else delivery.delivered
                if await self._conclude(run, delivery, number, given_up(end, lost), hop):
                    await self._book_lost(run, lost, number, hop)
        except ContractError as failure:
            log.error("attempt could not be ended", subject=delivery.subject, error=str(failure))

    def _hop(self, name: str, run: RunAttempt, delivery: Delivery) -> Hop:
        hop = self._platform.tracing.hop(name, "consumer", delivery.header(s.TRACEPARENT))
        if hop.sampled:
            said = received(DESTINATION, delivery) | about(run)
            hop.describe(said | {names.ATTEMPT: run.attempt.number})
        return hop

    async def _run_alone(self, run: RunAttempt, delivery: Delivery, hop: Hop) -> None:
        """Runs an attempt once at a time: a broker that was killed may hand it over again while it still runs."""
        key = (run.task.id, run.attempt.number, run.try_number)
        is_copy = delivery.delivered > 1
        while (running := self._running.get(key)) is not None:
            is_copy = True
            await asyncio.wait([running])
        if is_copy and await self._has_ended(run, delivery, hop):
            return
        done = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            await self._run(run, delivery, hop)
        finally:
            del self._running[key]
            done.set_result(None)

    async def _run(self, run: RunAttempt, delivery: Delivery, hop: Hop) -> None:
        lost = await lost_calls(self._platform, run) if delivery.delivered > 1 and run.sampling.stream else []
        early = await self._refusal(run)
        if early is not None:
            end = ended_by(early, lost)
            number = lost[-1].delivery if end.called else delivery.delivered
            if await self._finish(run, delivery, number, end, hop):
                await self._book_lost(run, lost, number if end.called else 0, hop)
            return
        number = await self._begin(run, delivery, hop)
        if number is None:
            return
        failpoint("worker-pool.after-started")
        telling = self._tell_later(run, hop)
        try:
            end = await self._caller.call(run, number, hop)
        finally:
            if telling is not None:
                telling.cancel()
        failpoint("worker-pool.after-result")
        if await self._finish(run, delivery, number, end, hop):
            await self._book_lost(run, lost, number, hop)

    def _tell_later(self, run: RunAttempt, hop: Hop) -> asyncio.TimerHandle | None:
        """Tells that a task is being worked on, once it has been for a moment: what ends sooner tells its end."""
        if run.task.surface != "tasks" or not settles(run.task, run.attempt):
            return None
        return asyncio.get_running_loop().call_later(WORKING_AFTER_SECONDS, self._tell_working, run, hop.traceparent)

    def _tell_working(self, run: RunAttempt, traceparent: str) -> None:
        # Not waited for: a task's state is told again by what follows.
        task, attempt = run.task, run.attempt
        working = TaskDispatched(task=task, plan=attempt.plan, models=[attempt.model], at_ms=self._platform.now_ms())
        headers = {s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant, s.MESSAGE_ID: f"{task.id}.dispatched"}
        self._platform.publisher.tell(s.task_changed(task.tenant, task.id), encode(working), headers=headers)

    async def _refusal(self, run: RunAttempt) -> CallEnd | None:
        """Ends an attempt before its call: canceled, past its deadline, not configured here, or left alone for now."""
        task, model = run.task, run.attempt.model
        reason = self._cancels.reason(task.id)
        if reason is not None:
            return _uncalled(failures.canceled(task.id), reason)
        now = self._platform.now_ms()
        if now >= task.deadline_ms:
            error = TaskError(
                code="deadline_exceeded", message=f"task {task.id} reached its deadline before a worker was free"
            )
            return _uncalled(error, "deadline")
        if 0 < task.hold_expires_ms <= now:
            return _uncalled(failures.hold_expired(task.id), "failed")
        endpoint = self._caller.endpoint(model)
        if endpoint is None:
            return _uncalled(failures.not_configured(model), "failed")
        again_ms = await self._breakers.admit(self._caller.upstream_of(model), endpoint.timeout_seconds)
        if again_ms:
            return _uncalled(failures.circuit_open(model, (again_ms - now) / 1000), "failed")
        return None

    async def _begin(self, run: RunAttempt, delivery: Delivery, hop: Hop) -> int | None:
        """Stores AttemptStarted and returns the delivery number it stands under; none where the attempt has ended.

        Numbers go on over the tries of an attempt, so that each names one call.
        """
        task, attempt = run.task, run.attempt
        first = (run.earlier[-1].delivery if run.earlier else 0) + delivery.delivered
        # Of this run alone: another run's start, even by this worker, must never pass for this one's.
        begun = f"{self._worker}.{next(self._begun)}"
        for number in range(first, first + MAX_COPIES):
            started = AttemptStarted(
                task=task, attempt=attempt, delivery=number, worker=self._worker, at_ms=self._platform.now_ms()
            )
            try:
                await self._platform.publisher.publish(
                    s.attempt_started(task.tenant, task.id, attempt.number, number),
                    encode(started),
                    message_id=f"{task.id}.{attempt.number}.{number}.started.{begun}",
                    headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                    create_once=True,
                )
            except AlreadyStandsError:
                if await self._has_ended(run, delivery, hop):
                    return None
            else:
                return number
        raise UndecodableMessageError(f"attempt {attempt.number} of task {task.id} was started {MAX_COPIES} times")

    async def _has_ended(self, run: RunAttempt, delivery: Delivery, hop: Hop) -> bool:
        """Whether the task is settled, the attempt has ended, or this try was made: then it is handed back for sure."""
        task, number = run.task, run.attempt.number
        if await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None:
            if (failure := await standing_failure(self._platform.direct, task)) is not None:
                # Whoever settled it may have been killed before it could keep the input.
                await self._platform.dead_letters.keep_failed(failure, delivery)
            return True
        if not settles(task, run.attempt):
            ended = await self._platform.direct.last(s.EVENTS, s.attempt_ended(task.tenant, task.id, number))
            if ended is not None:
                return True
        subject = s.attempt_retried(task.tenant, task.id, number, run.try_number)
        standing = await self._platform.direct.last(s.EVENTS, subject)
        if standing is None:
            return False
        message = journey.decode(standing.payload)
        if isinstance(message, AttemptRetried):
            await self._hand_back(run, message, hop)
        return True

    async def _finish(self, run: RunAttempt, delivery: Delivery, number: int, end: CallEnd, hop: Hop) -> bool:
        """Says how a call ended: again where it may be tried again, for good otherwise, as waste where it is late.

        False where another's word stands.
        """
        if await self._was_overtaken(run, delivery, number):
            await self._discard(run, number, end, hop)
            return False
        not_before_ms = self._next_try_ms(run, end)
        if not_before_ms is None:
            return await self._conclude(run, delivery, number, end, hop)
        now = self._platform.now_ms()
        standing = retried(run, number, end, not_before_ms, now)
        task = run.task
        stored = await self._store_end(
            s.attempt_retried(task.tenant, task.id, run.attempt.number, run.try_number),
            encode(standing),
            f"{task.id}.{run.attempt.number}.{run.try_number}.retried.{number}.{self._worker}",
            run,
            hop,
            {s.H_CALL: write_note(call_usage(run, number, end))},
        )
        if not stored:
            await self._discard(run, number, end, hop)
            return False
        log.info("attempt is made again", task=task.id, attempt=run.attempt.number, error=standing.error.code)
        await self._hand_back(run, standing, hop)
        return True

    async def _was_overtaken(self, run: RunAttempt, delivery: Delivery, number: int) -> bool:
        """Whether somebody else began this attempt while this process stood still or was cut off."""
        loop = self.loops.get(run.attempt.pool)
        if loop is None or not loop.may_be_lost(delivery):
            return False
        task = run.task
        newest = await self._platform.direct.last(s.EVENTS, s.attempt_starts(task.tenant, task.id, run.attempt.number))
        about = s.parse_event(newest.subject) if newest is not None else None
        return about is not None and about.last > number

    def _next_try_ms(self, run: RunAttempt, end: CallEnd) -> int | None:
        if end.error is None or end.stop_reason != "failed":
            return None
        return next_try_ms(
            run,
            end.error,
            calls=len(run.earlier) + end.called,
            text_was_sent=end.output is not None and is_heard(run),
            now_ms=self._platform.now_ms(),
            chance=random.random(),  # noqa: S311 - jitter
        )

    async def _hand_back(self, run: RunAttempt, standing: AttemptRetried, hop: Hop) -> None:
        """Asks the router for the next try; asking twice changes nothing."""
        task = run.task
        await self._platform.publisher.publish(
            s.task_more(task.priority, shard_of(task.tenant), task.tenant),
            encode(requested(run, standing)),
            message_id=f"{task.id}.{run.attempt.number}.{run.try_number}.more",
            headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
        )

    async def _conclude(self, run: RunAttempt, delivery: Delivery, number: int, end: CallEnd, hop: Hop) -> bool:
        """Stores the result: settles a plan of one, ends a member of a larger one; what is refused (false) is waste."""
        now = self._platform.now_ms()
        task, attempt = run.task, run.attempt
        if settles(task, attempt):
            terminal = settled(run, number, end, now)
            stored = await settle(
                self._platform.publisher,
                terminal,
                settler=f"{attempt.number}.{run.try_number}.{number}.{self._worker}",
                traceparent=hop.traceparent,
                note=write_note(call_usage(run, number, end)),
            )
            if stored and isinstance(terminal, TaskFailed):
                await self._platform.dead_letters.keep_failed(terminal, delivery)
        else:
            stood = ended(run, number, end, now)
            stored = await self._store_end(
                s.attempt_ended(task.tenant, task.id, attempt.number),
                encode(stood),
                f"{task.id}.{attempt.number}.{run.try_number}.{number}.ended.{self._worker}",
                run,
                hop,
                {
                    s.H_CALL: write_note(call_usage(run, number, end)),
                    s.H_BILLED: billed_header(billed_of(stood)),
                    s.H_TESTS_UNTIL: write_until(stood),
                },
            )
        if not stored:
            await self._discard(run, number, end, hop)
        return stored

    async def _store_end(
        self, subject: str, payload: bytes, message_id: str, run: RunAttempt, hop: Hop, told: dict[str, str]
    ) -> bool:
        """Stores an end create-once; false where another stands."""
        headers = {s.TRACEPARENT: hop.traceparent, s.H_TENANT: run.task.tenant}
        headers |= {name: value for name, value in told.items() if value}
        try:
            await self._platform.publisher.publish(
                subject,
                payload,
                message_id=message_id,
                headers=headers,
                create_once=True,
            )
        except AlreadyStandsError:
            return False
        return True

    async def _book_lost(self, run: RunAttempt, lost: list[LostCall], number: int, hop: Hop) -> None:
        """Books the calls of killed workers that settled nothing; ``number`` is the one that did."""
        for one in lost:
            if one.delivery != number:
                await self._discard(run, one.delivery, one.end, hop)

    async def _discard(self, run: RunAttempt, delivery: int, end: CallEnd, hop: Hop) -> None:
        """Books a finished call that settles nothing."""
        if not end.called:
            return
        task, attempt = run.task, run.attempt
        now_ms = self._platform.now_ms()
        call = msgspec.structs.replace(call_usage(run, delivery, end), wasted=True)
        log.info("result came too late and is booked as waste", task=task.id, attempt=attempt.number, delivery=delivery)
        with contextlib.suppress(AlreadyStandsError):
            await self._platform.publisher.publish(
                s.attempt_discarded(task.tenant, task.id, attempt.number, delivery),
                encode(AttemptDiscarded(task=task, attempt=attempt, call=call, at_ms=now_ms)),
                message_id=f"{task.id}.{attempt.number}.{delivery}.discarded",
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant, s.H_CALL: write_note(call)},
                create_once=True,
            )


def _uncalled(error: TaskError, reason: StopReason) -> CallEnd:
    return CallEnd(usage=Usage(), duration_ms=0, error=error, stop_reason=reason, called=False)
