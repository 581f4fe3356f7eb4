"""Answering for those who do not: questions whose time is over are answered by the clock.

Every replica looks, and the stream lets one answer stand. One rule: an answer that came in time is never overtaken.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from collegium_contracts.messages import TaskInput
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.people.answering import Answering
from collegium_gateway.people.book import QuestionBook

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 1.0
AT_ONCE: Final = 100


class Expiring:
    """Looks for questions that are over, once a second."""

    def __init__(self, platform: Platform, book: QuestionBook, answering: Answering) -> None:
        self._platform = platform
        self._book = book
        self._answering = answering
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="expiring")

    async def stop(self) -> None:
        """Stops."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            try:
                await self.look()
            except Exception as error:  # the database or the broker may be away; what is over stays over
                log.warning("no look for questions that are over", error=type(error).__name__)

    async def look(self) -> int:
        """Answers what is over; returns how many that were."""
        due = await self._book.due(AT_ONCE)
        for tenant, task_id, question, queue in due:
            given = TaskInput(
                tenant=tenant,
                task_id=task_id,
                question=question,
                decision="expire",
                source="expiry",
                at_ms=self._platform.now_ms(),
                queue=queue,
            )
            try:
                await self._answering.store(given, "")
            except ApiError as error:
                if error.code != "already_answered":
                    raise
            log.info("nobody answered in time", task=task_id, question=question, tenant=tenant)
        return len(due)
