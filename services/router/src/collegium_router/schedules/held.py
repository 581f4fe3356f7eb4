"""Holding what a scheduled task may cost when it is released, as a gateway does for what begins at once.

One rule: a task that no budget covers fails with the budget's reason; one that came too fast waits a little longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.holding import Holds
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.openplans import as_planned
from collegium_contracts.requests import HoldAsk
from collegium_contracts.state import ModelRecord
from collegium_contracts.worstcase import GRACE_MS, counted_tokens, least_picos, worst_picos

LATER = ("rate_limited", "quota_exceeded")


class ReleaseHolds:
    """Asks for the holds of released tasks."""

    def __init__(self, connection: Connection, models: Callable[[], Iterable[ModelRecord]]) -> None:
        self._holds = Holds(connection)
        self._models = models

    async def hold(self, submitted: TaskSubmitted) -> TaskSubmitted | TaskError | None:
        """Returns the task with its hold, the error that it fails with, or none where it has to wait.

        Raises NoAnswerError where billing does not answer in time.
        """
        task, models = submitted.task, list(self._models())
        expires_ms = task.deadline_ms + GRACE_MS
        if task.probe is not None and task.probe.account == "operator":
            # Nothing is charged for it, so it takes nothing of its tenant's budgets and limits.
            return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, hold_expires_ms=expires_ms))
        answer = await self._holds.ask(
            HoldAsk(
                task=task.id,
                tenant=task.tenant,
                project=task.project,
                key_id=task.key_id,
                tier=task.tier,
                picos=worst_picos(submitted, models),
                tokens=counted_tokens(submitted, models),
                expires_at_ms=expires_ms,
                waited=True,
                stores=True,
                picos_least=least_picos(submitted, models),
            )
        )
        if answer.code in LATER:
            return None
        if answer.code:
            return TaskError(code=answer.code, message=f"task {task.id} was not released: {answer.message}")
        if answer.is_least:
            task = as_planned(submitted, "single").task
        return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, hold_expires_ms=expires_ms))

    def give_back(self, submitted: TaskSubmitted) -> None:
        """Gives a hold back where the task was not submitted."""
        self._holds.release(submitted.task.tenant, submitted.task.id)
