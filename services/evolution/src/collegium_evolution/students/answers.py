"""What is asked about students, samples and exports. One rule: whose they are is checked where they are kept."""

from __future__ import annotations

from collegium_bus.errors import RequestRefusedError
from collegium_contracts.messages import Message
from collegium_contracts.students import (
    DistillExport,
    ExportAsk,
    ExportReply,
    SamplesAsk,
    SamplesReply,
    StudentDrop,
    StudentRegister,
    StudentsAsk,
    StudentSpawn,
    StudentsReply,
)
from collegium_learning.distill.selecting import is_held_out

from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.exporting import Exports
from collegium_evolution.students.registering import Registering
from collegium_evolution.students.sample_store import SampleStore
from collegium_evolution.students.spawning import Students
from collegium_evolution.students.student_store import StudentStore


class StudentAnswers:
    """Answers ``svc.evolution.students``."""

    def __init__(
        self,
        samples: SampleStore,
        kept: StudentStore,
        students: Students,
        exports: Exports,
        written: ExportStore,
        registering: Registering,
    ) -> None:
        self._written = written
        self._registering = registering
        self._samples = samples
        self._kept = kept
        self._students = students
        self._exports = exports

    async def answer(self, asked: Message, _traceparent: str) -> Message:
        """Answers one question; raises RequestRefusedError, or what the database or the broker raised."""
        match asked:
            case StudentsAsk():
                return StudentsReply(rows=[one.row for one in await self._kept.rows(asked.tenant, asked.model)])
            case StudentSpawn():
                return StudentsReply(rows=[await self._students.spawn(asked)])
            case StudentRegister():
                return StudentsReply(rows=[await self._registering.register(asked)])
            case ExportAsk():
                found = await self._written.written(asked.id, asked.tenant)
                if found is None:
                    raise RequestRefusedError("not_found", "this tenant has no export of this id", "id")
                return ExportReply(manifest=found[0], content=found[1])
            case StudentDrop():
                return StudentsReply(rows=[await self._students.retire(asked.model, asked.tenant)])
            case SamplesAsk():
                return SamplesReply(rows=await self._samples.counts(asked.tenant, is_held_out))
            case DistillExport():
                return await self._exports.export(asked)
            case _:
                raise RequestRefusedError("invalid_value", f"{type(asked).__name__} is not asked here")
