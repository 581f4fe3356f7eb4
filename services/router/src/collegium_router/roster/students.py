"""Students in the roster: taken in, given other content, taken out, while the platform runs.

One rule: a student is a model like any other but in whom it answers for; a name that somebody else has is never its.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import subjects as s
from collegium_contracts.evolution import ModelSetReply
from collegium_contracts.messages import Message
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import StudentIntroduce, StudentRetire

from collegium_router.roster.bases import may_be_base
from collegium_router.roster.roster_answers import RosterAnswers

POOL = "general"
# A head's answer is one label; its text is cut where labels no longer depend on it.
HEAD_OUTPUT_TOKENS = 256
HEAD_CONTEXT_TOKENS = 32_000
FREE = Price(input_picos=0, output_picos=0)


class StudentAnswers(RosterAnswers):
    """Answers ``svc.router.student``: StudentIntroduce and StudentRetire."""

    def __init__(self, connection: Connection, models: Bucket, now_ms: Callable[[], int]) -> None:
        super().__init__(connection, models, now_ms, s.SVC_ROUTER_STUDENT)

    def check(self, asked: Any) -> str:
        """Returns the student's name; raises RequestRefusedError for any other question."""
        if not isinstance(asked, StudentIntroduce | StudentRetire):
            raise RequestRefusedError("invalid_value", f"StudentIntroduce is asked here, not {type(asked).__name__}")
        if isinstance(asked, StudentIntroduce) and not asked.student.tenants:
            raise RequestRefusedError("invalid_value", "a student answers for a tenant at least", "tenants")
        return asked.model

    def change(self, asked: Any, standing: ModelRecord, now_ms: int) -> ModelRecord:
        """Returns the standing model as it is: what changes is the roster."""
        return standing

    def reply(self, asked: Any, before: ModelRecord, after: ModelRecord, version: int, now_ms: int) -> Message:
        """Returns the roster's version."""
        return ModelSetReply(model=asked.model, version=version, is_new=False)

    def anew(self, asked: StudentIntroduce | StudentRetire, roster: Roster, now_ms: int) -> tuple[Roster, Message]:
        """Returns the roster as it is to be, the same one where it is so already, and the answer."""
        changed = introduced(roster, asked, now_ms) if isinstance(asked, StudentIntroduce) else retired(roster, asked)
        return changed, ModelSetReply(model=asked.model, version=changed.version, is_new=changed is not roster)


def introduced(roster: Roster, asked: StudentIntroduce, now_ms: int) -> Roster:
    """Returns the roster with a student, the same one where it stands so already.

    Raises RequestRefusedError ``already_exists`` where the name is another's, ``too_many_students`` beyond the limits.
    """
    owner = asked.student.tenants[0]
    base = next((model for model in roster.models if model.name == asked.student.base), None)
    if asked.student.kind == "prompt" and not may_be_base(base):
        raise RequestRefusedError("not_found", f"there is no model {asked.student.base!r} to be shown examples", "base")
    standing = next((model for model in roster.models if model.name == asked.model), None)
    if standing is not None and (standing.student is None or standing.student.tenants[:1] != [owner]):
        raise RequestRefusedError("already_exists", f"model {asked.model!r} is no student of this tenant", "model")
    if standing is not None and standing.enabled and standing.student == asked.student:
        return roster
    if too_many(roster, owner, asked.domain, asked.models_max, asked.domain_max, standing):
        text = f"a tenant of this tier has at most {asked.models_max} students, {asked.domain_max} in a domain"
        raise RequestRefusedError("too_many_students", f"{text}; retire one first", "domain")
    if standing is not None:
        again = msgspec.structs.replace(standing, enabled=True, student=asked.student, domains=[asked.domain])
        return _with(roster, [again if model is standing else model for model in roster.models])
    return _with(roster, [*roster.models, _record(asked, now_ms)])


def too_many(
    roster: Roster, owner: str, domain: str, models_max: int, domain_max: int, standing: ModelRecord | None
) -> bool:
    """Tells whether a tenant has as many students as it may, in all or in a domain, beside the standing one."""
    others = [
        model for model in roster.models
        if model.enabled and model is not standing and model.student is not None and model.student.tenants[0] == owner
    ]  # fmt: skip
    return len(others) >= models_max or sum(domain in model.domains for model in others) >= domain_max


def retired(roster: Roster, asked: StudentRetire) -> Roster:
    """Returns the roster without a student, the same one where it is not there; what it has in hand it finishes."""
    kept = [model for model in roster.models if model.student is None or model.name != asked.model]
    return roster if len(kept) == len(roster.models) else _with(roster, kept)


def _record(asked: StudentIntroduce, now_ms: int) -> ModelRecord:
    return ModelRecord(
        name=asked.model,
        rank="student",
        pool=POOL,
        price=FREE,
        charge=FREE,
        max_output_tokens=HEAD_OUTPUT_TOKENS,
        context_tokens=HEAD_CONTEXT_TOKENS,
        domains=[asked.domain],
        price_version=now_ms,
        student=asked.student,
    )


def _with(roster: Roster, models: list[ModelRecord]) -> Roster:
    return msgspec.structs.replace(roster, version=roster.version + 1, models=models)
