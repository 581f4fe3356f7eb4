"""Schedules: what has fallen due goes to INGRESS, what is canceled before its time is settled.

The broker moves a message to ``schedule.due`` at its time; any replica takes it from there. A task goes to INGRESS
under its own id; a cron schedule submits a task for each firing, under an id derived from the firing, then notes the
next firing by compare-and-set, stores the message for it, and only then acknowledges: killed anywhere, the next try
repeats what was done under the same ids. One rule: whatever is done here may be done again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog
from collegium_bus import topology
from collegium_bus.errors import AlreadyStandsError, BusError, QueueFullError
from collegium_bus.events import EventLoop, EventOf
from collegium_bus.kv import Bucket
from collegium_bus.schedules import ScheduleStream, handed_over_ms
from collegium_bus.settle import settle
from collegium_calendar.errors import CalendarError
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.consumers import consumer
from collegium_contracts.errors import ContractError, TaskError
from collegium_contracts.journey import HOPS, template
from collegium_contracts.messages import (
    AttemptFailed,
    CancelRequested,
    FireSchedule,
    JourneyMessage,
    TaskAccepted,
    TaskDispatched,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.state import CronSchedule, ModelRecord
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, received, sent
from collegium_telemetry.hop import Hop

from collegium_router.dispatching.probes import Probes
from collegium_router.dispatching.settlement import End, canceled, failed
from collegium_router.schedules.held import ReleaseHolds
from collegium_router.schedules.releases import KEY_ENDED, decide, fired, released, stopped, task_of

log = structlog.get_logger(__name__)

SPAN_RELEASE: Final = "router release task"
SPAN_FIRE: Final = "router fire schedule"
SUBMITTED: Final = template("TaskSubmitted")
DUE: Final = next(hop.subject for hop in HOPS if hop.filter == s.SCHEDULE_DUE_ALL)
AT_ONCE = 32
# A queue that is full is tried again within this.
POSTPONED_SECONDS = (5.0, 30.0)
RECONCILE_SECONDS = 120.0
RETRY_SECONDS = (0.2, 2.0)


class Schedules:
    """Releases, cron schedules and their cancellations, on every replica."""

    def __init__(self, platform: Platform, models: Callable[[], Iterable[ModelRecord]], probes: Probes) -> None:
        self._platform = platform
        self._probes = probes
        self._holds = ReleaseHolds(platform.connection, models)
        self._stream = ScheduleStream(platform.connection, platform.publisher)
        self._definitions = Bucket(platform.connection, s.KV_SCHEDULES)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._due = EventLoop(
            platform.connection, consumer("schedules"), codec.journey, self._handle, platform.dead_letters
        )
        self._canceled: asyncio.Queue[CancelRequested] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes what is due, and sees to it that every cron schedule has its next firing waiting."""
        await topology.verify(self._platform.connection, "router")
        self._due.start()
        self._tasks = [
            asyncio.create_task(self._settle_canceled(), name="schedules-canceled"),
            asyncio.create_task(self._keep_reconciling(), name="schedules-reconcile"),
        ]

    async def stop(self) -> None:
        """Stops; what was not finished comes again to the next who asks."""
        await self._due.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel(self, message: CancelRequested) -> None:
        """Notes a cancellation; a task that still waits for its time is settled and taken back."""
        if message.reason == "canceled":
            self._canceled.put_nowait(message)

    async def _handle(self, batch: Sequence[EventOf[JourneyMessage]]) -> None:
        """Takes a batch; raises where any of it has to be tried again."""
        failures = [
            problem
            for problem in await asyncio.gather(*(self._take(event) for event in batch), return_exceptions=True)
            if problem is not None
        ]
        if failures:
            raise failures[0]

    async def _take(self, event: EventOf[JourneyMessage]) -> None:
        async with self._slots:
            match event.message:
                case TaskSubmitted():
                    await self._release(event, event.message)
                case FireSchedule():
                    await self._fire(event, event.message)
                case other:
                    detail = f"{type(other).__name__} on {event.subject}, where only scheduled messages may stand"
                    await self._bury(event, "undecodable_message", detail)

    async def _bury(self, event: EventOf[JourneyMessage], cause: str, detail: str) -> None:
        if not await self._platform.dead_letters.bury(event.delivery, cause, detail):
            raise BusError(f"{event.subject}: its dead letter could not be stored")

    async def _release(self, event: EventOf[JourneyMessage], submitted: TaskSubmitted) -> None:
        task = submitted.task
        with self._platform.tracing.hop(SPAN_RELEASE, "consumer", event.traceparent) as hop:
            if hop.sampled:
                hop.describe(received(DUE, event.delivery) | about(submitted))
            if await self._went_on(task):
                return
            if await self._platform.direct.last(s.EVENTS, s.cancel(task.tenant, task.id)) is not None:
                await self._settle(submitted, hop.traceparent)
                return
            if task.probe is not None:
                asked = await self._probes.ready(submitted, hop.traceparent)
                if asked is None:
                    return
                submitted = asked
            await self._submit(submitted, hop)

    async def _went_on(self, task: TaskRef) -> bool:
        """Whether the task has settled or began: then an earlier try, or a cancellation, was here before."""
        direct = self._platform.direct
        if await direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None:
            return True
        changed = await direct.last(s.EVENTS, s.task_changed(task.tenant, task.id))
        if changed is not None and isinstance(codec.journey.decode(changed.payload), TaskDispatched):
            return True
        return await direct.last(s.EVENTS, s.attempts_of(task.tenant, task.id)) is not None

    async def _submit(self, waiting: TaskSubmitted, hop: Hop) -> TaskError | None:
        """Releases a task to INGRESS; where the tenant's queue is full, it waits in SCHEDULE a little longer.

        Returns why it was refused for good, and settled so; none where it was not.
        """
        task = waiting.task
        now_ms = self._platform.now_ms()
        headers = {s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant}
        shard = ids.shard_of(task.tenant)
        held = await self._holds.hold(released(waiting, now_ms))
        if isinstance(held, TaskError):
            await self._store_end(failed(waiting, held, now_ms), hop.traceparent)
            return held
        try:
            if held is None:
                raise QueueFullError(f"tenant {task.tenant} has reached a limit", 0)
            await self._platform.publisher.publish(
                s.task_submitted(task.priority, shard, task.tenant),
                codec.encode(held),
                message_id=task.id,
                headers=headers,
            )
        except QueueFullError:
            if held is not None:
                self._holds.give_back(held)
            later_ms = now_ms + int(random.uniform(*POSTPONED_SECONDS) * 1000)  # noqa: S311 - jitter
            log.info("queue full, released later", task=task.id, tenant=task.tenant)
            await self._stream.put(
                s.schedule_task(task.tenant, task.id),
                codec.encode(waiting),
                at_ms=later_ms,
                shard=shard,
                headers=headers,
            )
        return None

    async def _fire(self, event: EventOf[JourneyMessage], due: FireSchedule) -> None:
        key = s.schedule_key(due.tenant, due.schedule)
        while (entry := await self._definitions.get(key)) is not None:
            try:
                schedule = codec.state.decode(entry.value)
                if not isinstance(schedule, CronSchedule) or schedule.paused:
                    return
                # The broker was there at that time, whatever another clock says.
                now_ms = max(await self._stream.broker_now_ms(), due.at_ms)
                decided = decide(schedule, now_ms)
            except (ContractError, CalendarError) as error:
                await self._bury(event, "internal_error", f"schedule {due.schedule} cannot fire: {error}")
                return
            ended = ""
            for at_ms in decided.due_ms:
                ended = await self._submit_firing(schedule, at_ms)
                if ended:
                    break
            if ended:
                # Its key lets nobody in any more; the task that failed says so, and the schedule.
                schedule = stopped(fired(schedule, decided), ended)
                try:
                    await self._definitions.put(key, codec.encode(schedule), expected_revision=entry.revision)
                except AlreadyStandsError:
                    continue
                return
            if decided.next_ms != schedule.next_at_ms:
                schedule = fired(schedule, decided)
                try:
                    await self._definitions.put(key, codec.encode(schedule), expected_revision=entry.revision)
                except AlreadyStandsError:
                    # Another replica, or the tenant, was faster; what it left is looked at anew.
                    continue
            if not schedule.paused:
                await self._stream.arm(schedule, now_ms)
            return

    async def _submit_firing(self, schedule: CronSchedule, at_ms: int) -> str:
        """Submits one firing; returns the code of why the schedule may fire no more, empty where it may."""
        now_ms = self._platform.now_ms()
        waiting = task_of(schedule, at_ms, now_ms)
        task = waiting.task
        accepted = TaskAccepted(
            task=task, at_ms=now_ms, callback=schedule.callback, callback_receiver=schedule.callback_receiver
        )
        if await self._platform.direct.last(s.EVENTS, s.task_told(task.tenant, task.id)) is not None:
            return ""
        with self._platform.tracing.root(SPAN_FIRE, "producer") as hop:
            if hop.sampled:
                hop.describe(sent(SUBMITTED) | about(waiting))
            refused = await self._submit(waiting, hop)
            await self._platform.publisher.publish(
                s.task_changed(task.tenant, task.id),
                codec.encode(accepted),
                message_id=f"{task.id}.accepted",
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
            )
        return refused.code if refused is not None and refused.code in KEY_ENDED else ""

    async def _settle(self, submitted: TaskSubmitted, traceparent: str) -> None:
        await self._store_end(canceled(submitted, self._platform.now_ms()), traceparent)

    async def _store_end(self, settled: End, traceparent: str) -> None:
        assert not isinstance(settled, AttemptFailed), "a task that was not dispatched has no attempts"
        settler = f"schedules-{self._platform.instance}"
        await settle(self._platform.publisher, settled, settler=settler, traceparent=traceparent)

    async def _settle_canceled(self) -> None:
        """Settles what was canceled before its time, one by one. Settling first: nothing is lost in between."""
        while True:
            message = await self._canceled.get()
            subject = s.schedule_task(message.tenant, message.task_id)
            while True:
                try:
                    await self._cancel_waiting(subject)
                except BusError as error:
                    log.warning("scheduled task not canceled yet", task=message.task_id, error=str(error))
                    await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311 - jitter
                else:
                    break

    async def _cancel_waiting(self, subject: str) -> None:
        try:
            stored = await self._platform.direct.last(s.SCHEDULE, subject)
            waiting = codec.journey.decode(stored.payload) if stored is not None else None
        except ContractError as error:
            log.error("scheduled task unreadable, left to be buried when due", subject=subject, error=str(error))
            return
        if stored is not None and isinstance(waiting, TaskSubmitted):
            await self._settle(waiting, stored.headers.get(s.TRACEPARENT, ""))
            await self._stream.take_back(subject)

    async def _keep_reconciling(self) -> None:
        while True:
            try:
                await self.reconcile()
            except BusError as error:
                log.warning("schedules not reconciled, trying again", error=str(error))
                await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311 - jitter
                continue
            await asyncio.sleep(RECONCILE_SECONDS * random.uniform(0.7, 1.0))  # noqa: S311 - jitter

    async def reconcile(self) -> None:
        """Gives every active schedule its waiting message, and clears what is left of deleted ones."""
        now_ms = await self._stream.broker_now_ms()
        async for entry in self._definitions.entries():
            if entry.deleted:
                await self._definitions.remove(entry.key, revision=entry.revision)
                continue
            try:
                schedule = codec.state.decode(entry.value)
            except ContractError as error:
                log.error("schedule unreadable", key=entry.key, error=str(error))
                continue
            if not isinstance(schedule, CronSchedule) or schedule.paused:
                continue
            if not await self._waits(schedule, handed_over_ms(schedule.next_at_ms, now_ms)):
                await self._stream.arm(schedule, now_ms)

    async def _waits(self, schedule: CronSchedule, at_ms: int) -> bool:
        standing = await self._platform.direct.last(s.SCHEDULE, s.schedule_cron(schedule.tenant, schedule.id))
        if standing is None:
            return False
        try:
            waiting = codec.journey.decode(standing.payload)
        except ContractError:
            return False
        return isinstance(waiting, FireSchedule) and waiting.at_ms <= at_ms
