"""Pausing a task: what is asked is stored once, its hold is asked to live as long, and whoever waits is told.

One rule: a cancellation that came while the pause was being stored is found by whoever stored it; one that comes later
finds the pause. Whoever finds that it stands looks too, as who stored it may have been killed before.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from collegium_bus.errors import AlreadyStandsError, GoneError, NoAnswerError
from collegium_bus.pauses import Waiting, waiting
from collegium_bus.settle import settle
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.messages import InputRequired, TaskCompleted, TaskRef
from collegium_contracts.people import EXPIRES_MS_DEFAULT, Open, Question
from collegium_contracts.worstcase import GRACE_MS
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform

from collegium_consensus.inputs import begun
from collegium_consensus.people.outcomes import canceled

log = structlog.get_logger(__name__)


class Pausing:
    """Stores pauses."""

    def __init__(self, platform: Platform, settler: str) -> None:
        self._platform = platform
        self._settler = settler

    async def pause(self, verdict: TaskCompleted, questions: Sequence[Question], traceparent: str) -> None:
        """Lets a verdict wait for people; raises BusError where that cannot be stored, or not be read back now."""
        task, now_ms = verdict.task, self._platform.now_ms()
        beginning = await begun(self._platform, task)
        expires_ms = now_ms + (task.people.expires_ms if task.people is not None else EXPIRES_MS_DEFAULT)
        hold_until_ms = expires_ms + GRACE_MS
        message = InputRequired(
            task=task,
            stage="answer",
            questions=list(questions),
            at_ms=now_ms,
            expires_at_ms=expires_ms,
            hold_until_ms=hold_until_ms,
            submitted=beginning[0].submitted if beginning is not None else None,
            verdict=verdict,
        )
        headers = {s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant, s.H_HOLD_UNTIL: str(hold_until_ms)}
        failpoint("consensus.before-pause")
        try:
            await self._platform.publisher.publish(
                s.task_paused(task.tenant, task.id, "answer"),
                encode(message),
                message_id=f"{task.id}.answer.paused",
                headers=headers,
                create_once=True,
            )
        except AlreadyStandsError:
            log.info("task waited for people before", task=task.id, tenant=task.tenant)
        else:
            log.info("task waits for people", task=task.id, tenant=task.tenant, questions=len(questions))
        failpoint("consensus.after-pause")
        await self._follow(await self._standing(task), traceparent)

    async def _standing(self, task: TaskRef) -> Waiting:
        """Returns the pause as it stands, read together with what came for its task."""
        subject = s.task_paused(task.tenant, task.id, "answer")
        try:
            found = await waiting(self._platform.direct, self._platform.claims, task.tenant, task.id, subject)
        except GoneError as error:
            # The stream has just said that it stands: asked again, it says so again, or takes it anew.
            raise NoAnswerError(str(error)) from error
        assert found is not None, "its own pause was read"
        return found

    async def _follow(self, found: Waiting, traceparent: str) -> None:
        """Ends a task that was canceled while its pause was being stored; else tells whoever waits for it."""
        if found.is_settled or not isinstance(found.resolution, Open):
            return
        pause = found.pause
        task = pause.task
        if found.is_canceled:
            await settle(
                self._platform.publisher,
                canceled(pause, self._platform.now_ms()),
                settler=self._settler,
                traceparent=traceparent,
            )
        elif task.reply:
            headers = {s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant, s.H_HOLD_UNTIL: str(pause.hold_until_ms)}
            await self._platform.publisher.notify(s.done(task.reply, task.id), encode(pause), headers=headers)
