"""The stream of schedules: storing a message for later, taking it back, and the broker's clock.

A message on a subject of its own names the time and the subject to which the broker moves it then (ADR-51 of the NATS
architecture); until then it can be replaced or purged. One rule: the broker's clock decides what is due, because it is
the broker that fires.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.ids import shard_of
from collegium_contracts.journey import STREAMS
from collegium_contracts.messages import FireSchedule
from collegium_contracts.state import CronSchedule

from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError
from collegium_bus.publisher import PubAck, Publisher

# No message waits longer than SCHEDULE keeps one: a cron schedule whose next firing is further away is handed over
# meanwhile, to be armed again.
MAX_WAIT_MS = 7 * 86_400_000
MAX_BYTES = next(stream.max_bytes for stream in STREAMS if stream.name == s.SCHEDULE)


class Filling(msgspec.Struct, frozen=True):
    """How full SCHEDULE is: all its bytes, and how many messages stand on the subjects that were asked for."""

    bytes: int
    messages: int


def handed_over_ms(next_at_ms: int, now_ms: int) -> int:
    """Returns when a cron schedule is to be handed over: at its next firing, or at the latest in a week."""
    return min(next_at_ms, now_ms + MAX_WAIT_MS)


class ScheduleStream:
    """SCHEDULE over one connection."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher

    async def put(
        self,
        subject: str,
        payload: bytes,
        *,
        at_ms: int,
        shard: int,
        headers: dict[str, str],
        message_id: str = "",
    ) -> PubAck:
        """Stores a message that the broker moves to ``schedule.due.<shard>`` at ``at_ms``, at once where that is past.

        Replaces what waits on the subject. Headers travel along, but for the message's id. Errors as of
        :meth:`Publisher.publish`.
        """
        moment = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        schedule = {s.SCHEDULE_PATTERN: f"@at {moment}", s.SCHEDULE_TARGET: s.schedule_due(shard)}
        return await self._publisher.publish(subject, payload, message_id=message_id, headers=headers | schedule)

    async def arm(self, schedule: CronSchedule, now_ms: int) -> None:
        """Stores the message that hands a cron schedule over at its next firing, in place of the one that stands."""
        at_ms = handed_over_ms(schedule.next_at_ms, now_ms)
        await self.put(
            s.schedule_cron(schedule.tenant, schedule.id),
            encode(FireSchedule(tenant=schedule.tenant, schedule=schedule.id, at_ms=at_ms)),
            at_ms=at_ms,
            shard=shard_of(schedule.tenant),
            headers={s.H_TENANT: schedule.tenant},
        )

    async def take_back(self, subject: str) -> None:
        """Removes what waits on a subject, if anything; raises NoAnswerError where the broker refuses or is away."""
        body = msgspec.json.encode({"filter": subject})
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.PURGE.{s.SCHEDULE}", body))
        if error := reply.get("error"):
            raise NoAnswerError(f"{subject}: {error.get('description')}")

    async def filling(self, subjects: str) -> Filling:
        """Returns how full the stream is and how many messages stand on a filter; 5 ms for a thousand of them."""
        state = (await self._info({"subjects_filter": subjects}))["state"]
        return Filling(state["bytes"], sum((state.get("subjects") or {}).values()))

    async def broker_now_ms(self) -> int:
        """Returns the broker's time in Unix milliseconds."""
        return int(datetime.fromisoformat((await self._info({}))["ts"]).timestamp() * 1000)

    async def _info(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = msgspec.json.decode(await self._connection.api(f"STREAM.INFO.{s.SCHEDULE}", msgspec.json.encode(body)))
        if error := reply.get("error"):
            raise NoAnswerError(f"{s.SCHEDULE}: {error.get('description')}")
        info: dict[str, Any] = reply
        return info
