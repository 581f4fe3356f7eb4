"""Students that the platform made: what the roster says of them, and what is asked about them.

A ``head`` is a trained classifier that answers inside the workers; a ``prompt`` is another model that is shown an
instruction and examples first; an ``endpoint`` is a model that a provider fine-tuned on an export, registered by hand.
Not here: ranks, which a student earns as any model does (ranks.py). One rule: a student answers for the tenant whose
work it learned from, and for others only where that tenant granted it in writing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope
from collegium_contracts.parts import Rank

StudentKind = Literal["head", "prompt", "endpoint"]
StudentState = Literal["training", "serving", "failed", "retired"]
ExportShape = Literal["response", "metric", "preference", "reasoning", "soft"]
ExportFormat = Literal["annotated", "openai"]
HeldOutState = Literal["taken", "not_covered", "not_allowed", "no_model"]


class StudentOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model of the roster is where the platform made it: its kind, and the tenants it answers for.

    The first of ``tenants`` is the one whose work it learned from. ``content`` is the claim of its bytes in
    the bucket of students, sealed with that tenant's key for the purpose ``student:<model>``. Below ``confidence`` a
    head says that it is not sure. A prompt is shown to the model ``base``, and adds at most ``prompt_bytes`` to what
    that one is sent.
    """

    kind: StudentKind
    tenants: list[str]
    content: str = ""
    confidence: float = 0.0
    made_at_ms: int = 0
    base: str = ""
    prompt_bytes: int = 0


class StudentIntroduce(Message, frozen=True, kw_only=True):
    """Asks the router to take a student into the roster, or to give it other content.

    ``models_max`` and ``domain_max`` bound the students of its tenant, and those in its domain; beyond them the answer
    is ``too_many_students``. Answered with a ModelSetReply.
    """

    model: str
    domain: str
    student: StudentOf
    models_max: int
    domain_max: int


class StudentRetire(Message, frozen=True, kw_only=True):
    """Asks the router to take a student out of the roster; asking again changes nothing."""

    model: str


class StudentsAsk(Message, frozen=True, kw_only=True):
    """Asks evolution for students: of one tenant, or (none) of all; of one name where given."""

    tenant: str | None = None
    model: str = ""


class StudentSpawn(Message, frozen=True, kw_only=True):
    """Asks evolution to make a student of a tenant's verified samples in a domain; ``by`` is a key's public id.

    It answers for ``grants`` too, which the tenant named. The reply is its row, before it is trained. ``base`` is whom
    a prompt is shown to (empty: the cheapest that may be).
    """

    tenant: str
    domain: str
    kind: StudentKind = "head"
    by: str = ""
    grants: list[str] = []
    base: str = ""


class StudentRegister(Message, frozen=True, kw_only=True):
    """Asks evolution to take in a model that was fine-tuned on an export, as a student of the export's tenant.

    ``spec`` is the JSON of a model to add (see roster_requests.py); its domain is the export's. The reply is its row.
    """

    tenant: str
    export: str
    spec: bytes
    tier: str = ""
    grants: list[str] = []
    by: str = ""
    forced: bool = False


class ExportAsk(Message, frozen=True, kw_only=True):
    """Asks evolution for the manifest of a tenant's export."""

    id: str
    tenant: str


class ExportReply(Message, frozen=True, kw_only=True):
    """A manifest as JSON, and the claim of the lines."""

    manifest: bytes
    content: str


class StudentDrop(Message, frozen=True, kw_only=True):
    """Asks evolution to retire a student; ``tenant`` (none: any) is whose it has to be."""

    model: str
    tenant: str | None = None
    by: str = ""


class StudentRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One student: what it learned from, and what it reached on what it did not see.

    ``reason`` says why one ``failed``, in numbers and ids. A prompt has so many ``exemplars``, and its ``base``. Of a
    fine-tuned model ``held_out_asked`` of those ``held_out`` were compared, ``held_out_right`` of them said the same.
    """

    model: str
    tenant: str
    domain: str
    kind: StudentKind
    state: StudentState
    made_at_ms: int
    samples: int = 0
    labels: int = 0
    held_out: int = 0
    held_out_right: int = 0
    confidence: float = 0.0
    digest: str = ""
    retired_at_ms: int = 0
    by: str = ""
    reason: str = ""
    base: str = ""
    exemplars: int = 0
    held_out_asked: int = 0


class StudentsReply(Message, frozen=True, kw_only=True):
    """The students concerned, the newest first."""

    rows: list[StudentRow]


class SamplesAsk(Message, frozen=True, kw_only=True):
    """Asks how many samples of a tenant stand, by domain."""

    tenant: str


class SamplesRow(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one domain: all, those that are verified, and those that are held out."""

    domain: str
    samples: int
    verified: int
    held_out: int


class SamplesReply(Message, frozen=True, kw_only=True):
    """The samples, the domain with most first."""

    rows: list[SamplesRow]


class DistillExport(Message, frozen=True, kw_only=True):
    """Asks for a tenant's verified samples of a domain (empty: all) as JSON lines for fine-tuning.

    ``format`` ``openai`` holds what that provider takes and nothing else. ``temperature`` is that of soft targets.
    ``evaluation`` are texts that must not be trained on, nor anything like them.
    """

    tenant: str
    domain: str = ""
    shape: ExportShape = "response"
    max_rows: int = 10_000
    by: str = ""
    format: ExportFormat = "annotated"
    temperature: float = 1.0
    evaluation: list[str] = []


class DistillReply(Message, frozen=True, kw_only=True):
    """Where the lines are: a claim of an envelope, sealed with the tenant's key for ``distill:<tenant>``.

    ``left_out`` says how many samples were not taken, by reason. ``manifest`` is JSON: what was written, since when and
    under which licences; ``id`` names the export for good.
    """

    content: str
    rows: int
    held_out: int
    left_out: dict[str, int] = {}
    manifest: bytes = b"{}"
    id: str = ""


class HeldOutAsk(Message, frozen=True, kw_only=True):
    """Asks the router that owns a tenant's shard to ask a fine-tuned ``model`` what its export held out.

    ``of`` is the settled task whose ``prompt`` this is, sealed as it came; ``answer`` claims the sealed answer that
    ``gave``, of ``gave_rank``, had given. The model was made at ``made_at_ms``, and it is asked the ``number``-th time:
    the same question with the same of both again changes nothing.
    """

    tenant: str
    of: str
    model: str
    domain: str
    tier: str
    prompt: Envelope
    answer: str
    gave: str
    gave_rank: str
    max_tokens: int
    made_at_ms: int = 0
    number: int = 1


class HeldOutReply(Message, frozen=True, kw_only=True):
    """Whether it is asked: ``taken``, or why not: the budget of learning does not cover it yet, the tenant
    does not allow probes, or the model may not be asked."""

    state: HeldOutState


StudentRequest = (
    StudentIntroduce
    | StudentRetire
    | StudentsAsk
    | StudentSpawn
    | StudentRegister
    | StudentDrop
    | SamplesAsk
    | DistillExport
    | ExportAsk
    | HeldOutAsk
)
StudentReply = StudentsReply | SamplesReply | DistillReply | ExportReply | HeldOutReply


def may_ask(student: StudentOf | None, tenant: str) -> bool:
    """Whether a tenant's tasks may be given to a model; all that the platform did not make they may."""
    return student is None or tenant in student.tenants


def serves_unasked(student: StudentOf | None, rank: Rank) -> bool:
    """Whether a model answers tasks that do not name it: a student once it has earned more than a student's rank."""
    return student is None or rank != "student"
