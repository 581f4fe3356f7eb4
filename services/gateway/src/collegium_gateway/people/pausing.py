"""Letting a task wait for people before it begins: nothing is held, and nothing is queued, until they agree.

One rule: the pause is stored create-once and holds all that the task is made from, so it needs nothing of this gateway
any more.
"""

from __future__ import annotations

import msgspec
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.messages import InputRequired, TaskRef, TaskSubmitted
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.people.book import QuestionBook


class FirstPauses:
    """Stores pauses before tasks begin."""

    def __init__(self, platform: Platform, book: QuestionBook) -> None:
        self._platform = platform
        self._book = book

    async def pause(self, submitted: TaskSubmitted, hop: Hop) -> None:
        """Stores a task that waits for people; raises ApiError ``too_many_questions``, or what the broker refused."""
        task = submitted.task
        assert task.people is not None, "only what asks people waits for them"
        most = self._platform.settings.people.open_max
        if await self._book.open_of(task.tenant) >= most:
            text = f"{most} questions about tasks of this tenant are open; answer or cancel some, and try again"
            raise ApiError("too_many_questions", text)
        now_ms = self._platform.now_ms()
        # What it may cost is held when it is released.
        submitted = msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, hold_expires_ms=0))
        pause = InputRequired(
            task=submitted.task,
            stage="request",
            questions=task.people.before,
            at_ms=now_ms,
            expires_at_ms=now_ms + task.people.expires_ms,
            submitted=submitted,
        )
        try:
            await self._platform.publisher.publish(
                s.task_paused(task.tenant, task.id, "request"),
                encode(pause),
                message_id=f"{task.id}.request.paused",
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                create_once=True,
            )
        except AlreadyStandsError:
            # The same request again, under its idempotency key.
            return
        except BusError as error:
            raise from_bus(error, "the task") from error
        failpoint("gateway.after-pause")


def input_required(task: TaskRef) -> ApiError:
    """Returns what whoever waits for a task is told that waits for people."""
    return ApiError(
        "input_required",
        f"task {task.id} waits for people; GET /v1/tasks/{task.id} says for whom, POST /v1/tasks/{task.id}/input"
        " answers, and it goes on by itself then",
        task_id=task.id,
    )
