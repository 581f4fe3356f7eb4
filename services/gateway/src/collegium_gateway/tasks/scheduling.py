"""Tasks that may begin later: stored in SCHEDULE until their time, and how many of them there may be.

SCHEDULE would drop its oldest message rather than refuse a new one, so what could fill it is refused here, before
anything is stored. One rule: a refusal here leaves nothing behind.
"""

from __future__ import annotations

import asyncio

from collegium_bus.errors import BusError
from collegium_bus.publisher import CLAIM_CHECK_BYTES
from collegium_bus.schedules import MAX_BYTES, Filling, ScheduleStream
from collegium_contracts import belongings, codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.messages import TaskSubmitted
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_gateway.errors import ApiError, from_bus

# What a tenant may have waiting; the broker counts a thousand in about 5 ms.
MAX_WAITING_PER_TENANT = 5_000
# The rest is for what other replicas store while this one has not looked again.
MAX_FILLING = 0.8
LOOK_AGAIN_SECONDS = 1.0
# Content over 256 KB is kept beside the message for 4 days.
MAX_LARGE_AHEAD_SECONDS = 3 * 86_400


class Scheduling:
    """Stores tasks for later."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._stream = ScheduleStream(platform.connection, platform.publisher)
        self._seen: dict[str, tuple[float, Filling]] = {}

    async def store(self, submitted: TaskSubmitted, hop: Hop) -> None:
        """Stores a task until its time; raises what :meth:`check` does, or what the broker refused."""
        task = submitted.task
        await self.check(submitted)
        try:
            await self._stream.put(
                s.schedule_task(task.tenant, task.id),
                codec.encode(submitted),
                at_ms=task.not_before_ms,
                shard=ids.shard_of(task.tenant),
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                message_id=task.id,
            )
        except BusError as error:
            raise from_bus(error, "the task") from error

    async def check(self, submitted: TaskSubmitted) -> None:
        """Looks whether a task may wait for its time; one that may begin at once needs no place.

        One that people are asked about first is looked at before: once they agree, nobody is there to be told. Raises
        ApiError ``schedule_too_large``, ``too_many_scheduled``, ``schedules_full``, or that the broker is away.
        """
        task = submitted.task
        if not task.not_before_ms:
            return
        payload = codec.encode(submitted)
        ahead_ms = task.not_before_ms - self._platform.now_ms()
        if len(payload) > CLAIM_CHECK_BYTES and ahead_ms > MAX_LARGE_AHEAD_SECONDS * 1000:
            raise ApiError(
                "schedule_too_large",
                f"a task of more than {CLAIM_CHECK_BYTES // 1024} KB may wait at most"
                f" {MAX_LARGE_AHEAD_SECONDS // 86_400} days; submit it later, or make it smaller",
                param="not_before",
            )
        try:
            await self._check_room(task.tenant, len(payload))
        except BusError as error:
            raise from_bus(error, "the task") from error

    async def _check_room(self, tenant: str, payload_bytes: int) -> None:
        now = asyncio.get_running_loop().time()
        looked_at, filling = self._seen.get(tenant, (0.0, Filling(0, 0)))
        if now - looked_at >= LOOK_AGAIN_SECONDS:
            self._seen = {name: seen for name, seen in self._seen.items() if now - seen[0] < LOOK_AGAIN_SECONDS}
            looked_at, filling = now, await self._stream.filling(belongings.scheduled_of(tenant))
        if filling.messages >= MAX_WAITING_PER_TENANT:
            raise ApiError(
                "too_many_scheduled",
                f"{MAX_WAITING_PER_TENANT} tasks of this tenant wait for their time; cancel some, or try again later",
                retry_after_seconds=60,
            )
        if filling.bytes >= MAX_BYTES * MAX_FILLING:
            raise ApiError(
                "schedules_full", "the store of scheduled tasks is full; try again later", retry_after_seconds=60
            )
        self._seen[tenant] = (looked_at, Filling(filling.bytes + payload_bytes, filling.messages + 1))
