"""Cron schedules: made, shown, paused and deleted. The router fires them.

A definition is one value of the bucket ``schedules``; a message in SCHEDULE waits for its next firing. The definition
is stored first: a message that is missing is put back by the router. One rule: every read and write names its tenant.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket
from collegium_bus.schedules import ScheduleStream
from collegium_calendar.cron import Cron
from collegium_calendar.errors import CalendarError
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.journey import BUCKETS
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.state import CronSchedule
from collegium_runtime.platform import Platform

from collegium_gateway.admission.admission import asked_by_task, check_people, submission
from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.requests import ScheduleRequest, TaskRequest, options_of
from collegium_gateway.admission.timing import refuse_times
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.terms import asks_first, with_people
from collegium_gateway.tasks.views import rfc3339
from collegium_gateway.webhooks.callbacks import check_url, receiver_of

log = structlog.get_logger(__name__)

ENDED_KEYS = ("revoked_api_key",)

MAX_PER_TENANT = 100
MAX_NAME_CHARS = 128
# The whole bucket is read every few minutes, and a definition is written at each firing.
MAX_DEFINITION_BYTES = 32 * 1024
# A full bucket would refuse firings too, so new schedules are refused before.
MAX_FILLING = 0.8
_MAX_BYTES = next(bucket.max_bytes for bucket in BUCKETS if bucket.name == s.KV_SCHEDULES)


class CronSchedules:
    """The use cases of cron schedules."""

    def __init__(self, platform: Platform, directory: Directory, gating: Gating) -> None:
        self._gating = gating
        self._platform = platform
        self._directory = directory
        self._bucket = Bucket(platform.connection, s.KV_SCHEDULES)
        self._stream = ScheduleStream(platform.connection, platform.publisher)

    async def create(self, principal: Principal, request: ScheduleRequest) -> dict[str, Any]:
        """Makes a schedule and returns its view; raises ApiError for what is wrong with it, and at the limits."""
        now_ms = self._platform.now_ms()
        if len(request.name) > MAX_NAME_CHARS:
            raise ApiError("invalid_value", f"name may have at most {MAX_NAME_CHARS} characters", param="name")
        next_ms = _next_firing(request.cron, request.timezone, now_ms)
        schedule = CronSchedule(
            id=ids.schedule_id(now_ms, os.urandom(10)),
            tenant=principal.tenant,
            name=request.name,
            cron=request.cron,
            timezone=request.timezone,
            missed=request.missed,
            task=await self._pattern(principal, request.task),
            created_at_ms=now_ms,
            next_at_ms=next_ms,
            **self._callback(principal.tenant, request.task.callback_url),
        )
        value = codec.encode(schedule)
        if len(value) > MAX_DEFINITION_BYTES:
            raise ApiError(
                "body_too_large", f"a schedule may have at most {MAX_DEFINITION_BYTES // 1024} KB", param="task"
            )
        self._directory.need_storage(principal.tenant, principal.tier)
        await self._check_room(principal.tenant)
        try:
            await self._bucket.put(_key(schedule), value, expected_revision=0)
        except AlreadyStandsError:
            log.info("schedule stored by a first try", schedule=schedule.id)
        except BusError as error:
            raise from_bus(error, "the schedule") from error
        await self._arm(schedule, now_ms)
        return view(schedule)

    async def page(self, principal: Principal) -> list[dict[str, Any]]:
        """Returns the views of all of the tenant's schedules, the last changed last."""
        try:
            return [view(schedule) async for schedule in self._of_tenant(principal.tenant)]
        except BusError as error:
            raise from_bus(error, "the list of schedules") from error

    async def get(self, principal: Principal, schedule_id: str) -> dict[str, Any]:
        """Returns one view, with what the task asks; ApiError ``not_found`` where the tenant has none of this id."""
        schedule, _ = await self._standing(principal.tenant, schedule_id)
        keyring = self._platform.keyring
        messages = keyring.open(schedule.tenant, schedule.task.prompt)
        shown = view(schedule)
        task: dict[str, Any] = {**shown["task"], "input": msgspec.Raw(messages)}
        if schedule.callback is not None:
            task["callback_url"] = keyring.open(schedule.tenant, schedule.callback).decode()
        return {**shown, "task": task}

    async def pause(self, principal: Principal, schedule_id: str) -> dict[str, Any]:
        """Lets a schedule fire no more until it is resumed; what comes due meanwhile is not missed."""
        return view(await self._change(principal.tenant, schedule_id, _paused))

    async def resume(self, principal: Principal, schedule_id: str) -> dict[str, Any]:
        """Lets a schedule fire again, from now on."""
        now_ms = self._platform.now_ms()

        def resumed(schedule: CronSchedule) -> CronSchedule:
            if not schedule.paused:
                return schedule
            next_ms = _next_firing(schedule.cron, schedule.timezone, now_ms)
            if schedule.stopped in ENDED_KEYS:
                # The key that made it has ended: whoever resumes it answers for it from now on.
                schedule = _adopted(schedule, principal)
            return msgspec.structs.replace(schedule, paused=False, stopped="", next_at_ms=next_ms)

        schedule = await self._change(principal.tenant, schedule_id, resumed)
        await self._arm(schedule, now_ms)
        return view(schedule)

    async def delete(self, principal: Principal, schedule_id: str) -> None:
        """Deletes a schedule; tasks that it submitted go on. ApiError ``not_found`` where there is none."""
        while True:
            schedule, revision = await self._standing(principal.tenant, schedule_id)
            try:
                await self._bucket.delete(_key(schedule), expected_revision=revision)
            except AlreadyStandsError:
                continue
            except BusError as error:
                raise from_bus(error, f"the deletion of schedule {schedule_id}") from error
            return

    async def _pattern(self, principal: Principal, request: TaskRequest) -> TaskSubmitted:
        """Returns what each firing submits, its times counted from nought."""
        try:
            asked = asked_by_task(request, options_of(request))
            refuse_times(asked.options, "is not for the task of a schedule: its cron says when")
            models = self._directory.models
            submitted = submission(asked, principal, models, self._platform.keyring, task_id="", reply="", now_ms=0)
            submitted = with_people(submitted, asked.options, self._platform.settings.people)
            check_people(submitted, models, principal)
            taken = self._gating.take(
                submitted,
                principal,
                asked.options.gates,
                asked.options.verified,
                asked.options,
            )
            checked = await self._gating.check(taken)
            if asks_first(checked):
                text = "a schedule fires by itself: it cannot wait for people before each of its tasks"
                raise ApiError("unsupported_option", text, param="approval")
            return checked
        except ApiError as error:
            param = f"task.{error.param}" if error.param else "task"
            raise ApiError(error.code, error.message, param=param, gate=error.gate) from None

    def _callback(self, tenant: str, url: str | None) -> dict[str, Any]:
        """Returns the fields of a definition that say who is called when a firing's task has ended."""
        if url is None:
            return {}
        try:
            checked = check_url(url, allow_private=self._platform.settings.webhooks.allow_private_addresses)
        except ApiError as error:
            raise ApiError(error.code, error.message, param=f"task.{error.param}") from None
        sealed = self._platform.keyring.seal(tenant, url.encode())
        return {"callback": sealed, "callback_receiver": receiver_of(tenant, checked)}

    async def _check_room(self, tenant: str) -> None:
        try:
            standing = [schedule async for schedule in self._of_tenant(tenant)]
            filling = await self._bucket.size_bytes()
        except BusError as error:
            raise from_bus(error, "the schedule") from error
        if len(standing) >= MAX_PER_TENANT:
            raise ApiError(
                "too_many_schedules", f"this tenant has {MAX_PER_TENANT} schedules, as many as it may; delete one"
            )
        if filling >= _MAX_BYTES * MAX_FILLING:
            raise ApiError("schedules_full", "the store of schedules is full; try again later", retry_after_seconds=60)

    async def _of_tenant(self, tenant: str) -> AsyncIterator[CronSchedule]:
        async for entry in self._bucket.entries(s.schedule_key(tenant, "*")):
            if not entry.deleted:
                value = codec.state.decode(entry.value)
                if isinstance(value, CronSchedule):
                    yield value

    async def _standing(self, tenant: str, schedule_id: str) -> tuple[CronSchedule, int]:
        """Returns a schedule and its revision."""
        if ids.SCHEDULE_ID.match(schedule_id) is not None:
            try:
                entry = await self._bucket.get(s.schedule_key(tenant, schedule_id))
            except BusError as error:
                raise from_bus(error, f"schedule {schedule_id}") from error
            value = codec.state.decode(entry.value) if entry is not None else None
            if entry is not None and isinstance(value, CronSchedule):
                return value, entry.revision
        raise ApiError("not_found", f"there is no schedule {schedule_id!r}", param="id")

    async def _change(
        self, tenant: str, schedule_id: str, change: Callable[[CronSchedule], CronSchedule]
    ) -> CronSchedule:
        while True:
            schedule, revision = await self._standing(tenant, schedule_id)
            changed = change(schedule)
            if changed == schedule:
                return schedule
            try:
                await self._bucket.put(_key(schedule), codec.encode(changed), expected_revision=revision)
            except AlreadyStandsError:
                # It fired meanwhile, or the first try of this change was stored: look again.
                continue
            except BusError as error:
                raise from_bus(error, f"the change of schedule {schedule_id}") from error
            return changed

    async def _arm(self, schedule: CronSchedule, now_ms: int) -> None:
        try:
            await self._stream.arm(schedule, now_ms)
        except BusError as error:
            log.warning("the next firing is left to the router to store", schedule=schedule.id, error=str(error))


def view(schedule: CronSchedule) -> dict[str, Any]:
    """Returns a schedule as clients see it, without what its task asks."""
    pattern = schedule.task.task
    return {
        "id": schedule.id,
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "missed": schedule.missed,
        "state": "paused" if schedule.paused else "active",
        "stopped_by": (schedule.stopped or None) if schedule.paused else None,
        "created_at": rfc3339(schedule.created_at_ms),
        "next_at": None if schedule.paused else rfc3339(schedule.next_at_ms),
        "last_at": rfc3339(schedule.last_at_ms) if schedule.last_at_ms else None,
        "last_task": schedule.last_task or None,
        "fired": schedule.fired,
        "task": {
            "model": pattern.model,
            "plan": pattern.plan,
            "priority": pattern.priority,
            "domain": pattern.domain,
            "conversation": pattern.conversation or None,
            "deadline_seconds": pattern.deadline_ms / 1000,
            "max_tokens": schedule.task.sampling.max_tokens,
            "tags": pattern.tags,
        },
    }


def _key(schedule: CronSchedule) -> str:
    return s.schedule_key(schedule.tenant, schedule.id)


def _adopted(schedule: CronSchedule, principal: Principal) -> CronSchedule:
    task = msgspec.structs.replace(
        schedule.task.task,
        project=principal.project,
        key_id=principal.key_id,
        tier=principal.tier,
        models=list(principal.models),
        pool=principal.pool,
    )
    return msgspec.structs.replace(schedule, task=msgspec.structs.replace(schedule.task, task=task))


def _paused(schedule: CronSchedule) -> CronSchedule:
    return msgspec.structs.replace(schedule, paused=True)


def _next_firing(expression: str, timezone: str, now_ms: int) -> int:
    try:
        next_ms = Cron(expression, timezone).next_after(now_ms)
    except CalendarError as error:
        raise ApiError("invalid_value", str(error), param=error.param) from None
    if next_ms is None:
        raise ApiError("invalid_value", f"{expression!r} does not come within fifty years", param="cron")
    return next_ms
