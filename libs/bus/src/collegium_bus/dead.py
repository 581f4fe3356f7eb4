"""Dead letters: what a service could not handle, and what a failed task was made from, kept with its original bytes.

One rule: a message that could not be handled is acknowledged only after its dead letter is stored; a task that failed
is settled whether or not its letter can be.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec
import structlog
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.ids import TASK_ID, TENANT_ID
from collegium_contracts.messages import DeadLetter, LetterAbout, TaskFailed

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.publisher import PUBLISH_BUDGET_SECONDS, Publisher

log = structlog.get_logger(__name__)

TASK_FAILED = "task_failed"
# Failed tasks may fill half of the stream: the rest is kept for what could not be handled, whose readers wait for it.
FAILED_SHARE = 0.5
LOOK_SECONDS = 5.0
KEEP_SECONDS = 2.0
BURY_SECONDS = PUBLISH_BUDGET_SECONDS


class Original(NamedTuple):
    """A message that somebody worked on, where it was not delivered by a consumer: as :class:`Delivery` names it."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    stream: str = ""
    sequence: int = 0
    delivered: int = 0
    consumer: str = ""


class _Ref(msgspec.Struct):
    id: str = ""


class _Number(msgspec.Struct):
    number: int = 0


class _About(msgspec.Struct):
    """What messages of every version say about themselves, as far as it can be read."""

    type: str = ""
    task_id: str = ""
    task: _Ref = msgspec.field(default_factory=_Ref)
    attempt: _Number = msgspec.field(default_factory=_Number)


class _State(msgspec.Struct):
    bytes: int = 0


class _Config(msgspec.Struct):
    max_bytes: int = 0


class _Info(msgspec.Struct):
    state: _State = msgspec.field(default_factory=_State)
    config: _Config = msgspec.field(default_factory=_Config)


_about = msgspec.msgpack.Decoder(_About)
_info = msgspec.json.Decoder(_Info)


class DeadLetters:
    """Writes one service's dead letters; ``kept``, ``buried`` and ``lost`` count what became of them."""

    def __init__(self, publisher: Publisher, service: str) -> None:
        self._publisher = publisher
        self._service = service
        self._room = True
        self._looked_at = 0.0
        self.buried = 0
        self.kept = 0
        self.lost = 0

    async def bury(self, delivery: Delivery | Original, cause: str, detail: str) -> bool:
        """Stores a dead letter for a delivery; false where it could not be stored (then keep the original)."""
        headers = delivery.headers
        # The headers of what could not be read are as untrusted as its bytes.
        tenant = headers.get(s.H_TENANT, "")
        tenant = tenant if TENANT_ID.match(tenant) else ""
        message_id = f"{self._service}.{delivery.stream}.{delivery.sequence}"
        try:
            await self._store(_letter(self._service, delivery, cause, detail), tenant, message_id, BURY_SECONDS)
        except BusError as error:
            log.error("dead letter not stored", subject=delivery.subject, sequence=delivery.sequence, error=str(error))
            return False
        self.buried += 1
        log.warning("dead letter", subject=delivery.subject, sequence=delivery.sequence, cause=cause, detail=detail)
        return True

    async def keep_failed(self, settled: TaskFailed, original: Delivery | Original) -> bool:
        """Keeps what a failed task was made from, so that it can be run again; false where there is no room for it.

        To be called after the task was settled as failed, with the message that was worked on (TaskSubmitted or
        RunAttempt, large ones by their claim). Best effort, within two seconds: never raises. Called again for the
        same task, within the stream's duplicate window, it stores nothing more.
        """
        task, error = settled.task, settled.error
        if task.probe is not None:
            # Nobody asked for it, so nobody wants it run again.
            return True
        letter = _letter(self._service, original, TASK_FAILED, error.message)
        about = msgspec.structs.replace(letter.known, task_id=task.id, code=error.code)
        letter = msgspec.structs.replace(letter, about=about)
        try:
            kept = await self._has_room()
            if kept:
                await self._store(letter, task.tenant, f"failed.{task.id}", KEEP_SECONDS)
        except BusError as failure:
            log.warning("input of a failed task not kept", task=task.id, error=str(failure))
            kept = False
        self.kept += kept
        self.lost += not kept
        return kept

    async def _store(self, letter: DeadLetter, tenant: str, message_id: str, budget_seconds: float) -> None:
        await self._publisher.publish(
            s.dead(self._service, tenant),
            encode(letter),
            message_id=message_id,
            headers={s.TRACEPARENT: letter.known.traceparent},
            budget_seconds=budget_seconds,
        )

    async def _has_room(self) -> bool:
        """Whether failed tasks have not yet filled their share of the stream, as seen within the last seconds."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            connection: Connection = self._publisher.connection
            raw = await connection.api(f"STREAM.INFO.{s.DEAD}", timeout_seconds=KEEP_SECONDS)
            info = _info.decode(raw)
            room = not info.config.max_bytes > 0 or info.state.bytes < info.config.max_bytes * FAILED_SHARE
            if self._room and not room:
                log.error("the share of failed tasks in DEAD is full, their inputs are not kept", stream=s.DEAD)
            self._room = room
        return self._room


def _letter(service: str, original: Delivery | Original, cause: str, detail: str) -> DeadLetter:
    headers = original.headers
    kind, task_id, attempt = describe(original.subject, original.payload)
    return DeadLetter(
        service=service,
        subject=original.subject,
        cause=cause,
        detail=detail,
        payload=original.payload,
        at_ms=int(time.time() * 1000),
        stream=original.stream,
        sequence=original.sequence,
        delivery=original.delivered,
        headers=headers,
        about=LetterAbout(
            consumer=original.consumer,
            kind=kind,
            task_id=task_id,
            attempt=attempt,
            traceparent=headers.get(s.TRACEPARENT, ""),
        ),
    )


class About(NamedTuple):
    """What a message says of itself: its type, task and attempt, each empty where it cannot be read."""

    kind: str
    task_id: str
    attempt: int


def describe(subject: str, payload: bytes) -> About:
    """Reads what can be read of a message, odd or damaged as it may be; ids that are no ids are left out."""
    try:
        about = _about.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        about = _About()
    of_subject = s.parse_event(subject)
    task_id = about.task.id or about.task_id or (of_subject.task if of_subject is not None else "")
    attempt = about.attempt.number or (of_subject.attempt if of_subject is not None else 0)
    return About(about.type[:64], task_id if TASK_ID.match(task_id) else "", attempt if 0 < attempt < 2**31 else 0)
