"""The room of students as one part: its stores, what makes and exports, who answers, and what ages out.

One rule: erasing a tenant here erases what was said of it, what it said, and what was learned from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import structlog
from collegium_runtime.platform import Platform

from collegium_evolution.students.answers import StudentAnswers
from collegium_evolution.students.examining import Examining
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.exporting import Exports
from collegium_evolution.students.registering import Registering
from collegium_evolution.students.rounds import StudentRounds
from collegium_evolution.students.sample_store import SampleStore
from collegium_evolution.students.spawning import Students
from collegium_evolution.students.student_store import StudentStore

log = structlog.get_logger(__name__)

AGE_SECONDS: Final = 600.0
# Longer than any training, and its turn behind others, takes.
TRAINING_MS: Final = 3_600_000


class Learning:
    """Students and samples of one replica; ``rounds`` is its step of a round of learning, ``answers`` who is asked."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, erase: Callable[[str], Awaitable[int]]) -> None:
        self._kept = kept = StudentStore(pool)
        self._samples = SampleStore(pool, platform.settings.evolution.min_teacher_confidence)
        written = ExportStore(pool)
        registering = Registering(platform, pool, kept, written)
        self.students = Students(platform, self._samples, kept, registering)
        exports = Exports(platform, self._samples, written)
        self.rounds = StudentRounds(platform, pool, self._samples, kept, self.students)
        self.answers = StudentAnswers(self._samples, kept, self.students, exports, written, registering)
        self.examining = Examining(platform, pool, self._samples)
        self._erase = erase
        self._now_ms = platform.now_ms
        self._ageing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins forgetting what is old, and asking fine-tuned models."""
        self.examining.start()
        self._ageing = asyncio.create_task(self._age(), name="samples-age")

    async def stop(self) -> None:
        """Stops."""
        await self.examining.stop()
        await self.students.stop()
        if self._ageing is not None:
            self._ageing.cancel()
            await asyncio.gather(self._ageing, return_exceptions=True)

    async def erase(self, tenant: str) -> int:
        """Erases a tenant and returns how many rows that was."""
        return await self._erase(tenant) + await self.students.erase(tenant)

    async def _age(self) -> None:
        while True:
            try:
                await self._samples.forget_old(self._now_ms())
                await self._samples.forget_beyond()
                await self._kept.give_up(self._now_ms() - TRAINING_MS)
            except (asyncpg.PostgresError, OSError) as error:
                log.warning("old samples not removed, trying again", error=str(error))
            await asyncio.sleep(AGE_SECONDS)
