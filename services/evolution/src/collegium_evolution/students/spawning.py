"""Spawning and retiring students: a row at once, the training beside everything else, then a place in the roster.

A round of learning may spawn, and so may an operator. One rule: a student is in the roster only with
content that stands, for the tenants that its owner named.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.claims import ClaimStore
from collegium_bus.embed import EmbedClient
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.evolution import ModelSetReply
from collegium_contracts.state import Roster
from collegium_contracts.students import (
    StudentIntroduce,
    StudentKind,
    StudentOf,
    StudentRetire,
    StudentRow,
    StudentSpawn,
)
from collegium_learning.heads.head import HeadError, digest_of
from collegium_learning.prompts.prompt import PromptError, pack, size_of
from collegium_runtime.platform import Platform
from msgspec import msgpack

from collegium_evolution.students.making import made
from collegium_evolution.students.opened import Opened, opened
from collegium_evolution.students.prompting import base_of, prompted
from collegium_evolution.students.registering import ASK_SECONDS, FEATURE, Registering
from collegium_evolution.students.sample_store import SampleStore
from collegium_evolution.students.student_store import Kept, StudentStore

log = structlog.get_logger(__name__)

SAMPLES_MIN: Final = 20
# Training holds a core; whoever asks for more waits for its turn.
AT_ONCE: Final = 1
WAITING_MAX: Final = 32
_OTHER = re.compile(r"[^a-z0-9]+")
_encode = msgpack.Encoder().encode


def name_of(tenant: str, domain: str, kind: StudentKind = "head") -> str:
    """Returns the name of a tenant's student of a kind in a domain, the same for the same domain and for no other."""
    slug = _OTHER.sub("-", domain.lower()).strip("-")[:24]
    digest = hashlib.sha256(f"{tenant}\x00{domain}".encode()).hexdigest()[:8]
    return f"{kind}.{tenant}.{slug or 'all'}-{digest}"


def students_of(roster: Roster | None, tenant: str) -> list[Kept]:
    """Returns a tenant's own students as the roster has them. Pure."""
    found: list[Kept] = []
    for model in roster.models if roster is not None else ():
        if (student := model.student) is not None and student.tenants[:1] == [tenant]:
            row = StudentRow(
                model=model.name, tenant=tenant, domain=next(iter(model.domains), ""), kind=student.kind,
                state="serving", made_at_ms=student.made_at_ms,
            )  # fmt: skip
            found.append(Kept(row, student.content))
    return found


class Content(NamedTuple):
    """What a student is made of: its bytes, what the roster says of it, what its row says, and the tasks it shows."""

    content: bytes
    student: dict[str, Any]
    row: dict[str, Any]
    shown: tuple[str, ...] = ()


class Students:
    """Makes students, one at a time, and retires them."""

    def __init__(
        self, platform: Platform, samples: SampleStore, students: StudentStore, registering: Registering
    ) -> None:
        self._registering = registering
        self._platform = platform
        self._samples = samples
        self._students = students
        self._content = ClaimStore(platform.connection, s.STUDENTS_BUCKET, may_remove=True)
        self._embed = EmbedClient(platform.connection, platform.keyring)
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._training: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """Ends what is being trained; it may be asked for again."""
        for task in self._training.values():
            task.cancel()
        await asyncio.gather(*self._training.values(), return_exceptions=True)

    async def spawn(self, asked: StudentSpawn) -> StudentRow:
        """Begins a student and returns its row at once; one of the same tenant and domain is made anew.

        Raises RequestRefusedError ``too_few_samples``, ``feature_not_in_tier``, ``no_eligible_model`` where nobody may
        be shown a prompt, or ``too_many_students`` where too many wait to be trained.
        """
        model = name_of(asked.tenant, asked.domain, asked.kind)
        if model in self._training:
            return (await self._students.rows(asked.tenant, model))[0].row
        if len(self._training) >= WAITING_MAX:
            raise RequestRefusedError(
                "too_many_students", f"{WAITING_MAX} students wait to be trained; ask again later"
            )
        enough = await self._samples.rows(asked.tenant, asked.domain, limit=SAMPLES_MIN)
        if len(enough) < SAMPLES_MIN:
            text = f"{len(enough)} verified samples of this domain stand, {SAMPLES_MIN} are needed"
            raise RequestRefusedError("too_few_samples", text, "domain")
        tier = self._platform.settings.tiers.get(enough[0].tier)
        if tier is None or FEATURE not in tier.features:
            text = f"the tier {enough[0].tier!r} has no students of its own ({FEATURE})"
            raise RequestRefusedError("feature_not_in_tier", text, "tenant")
        base = ""
        if asked.kind == "prompt":
            base = base_of(await self._roster(), asked.tenant, asked.domain, asked.base)
        found = await self._students.rows(asked.tenant, model)
        # With content it serves, whatever became of the training that was begun since.
        before = found[0] if found and found[0].content and found[0].row.state != "retired" else None
        row = StudentRow(
            model=model, tenant=asked.tenant, domain=asked.domain, kind=asked.kind, state="training",
            made_at_ms=self._platform.now_ms(), by=asked.by,
            confidence=self._platform.settings.routing.cascade_confidence if asked.kind == "head" else 0.0, base=base,
        )  # fmt: skip
        content, shown = (before.content, before.shown) if before is not None else ("", ())
        if not await self._students.put(row, content, shown):
            raise RequestRefusedError("already_exists", f"the name {model!r} is another tenant's", "domain")
        work = self._train(row, asked.grants, enough[0].tier, before)
        task = asyncio.create_task(work, name=f"train-{model}")
        self._training[model] = task
        task.add_done_callback(lambda _done: self._training.pop(model, None))
        return row

    async def retire(self, model: str, tenant: str | None) -> StudentRow:
        """Takes a student out of the roster, then removes its content; raises RequestRefusedError ``not_found``."""
        found = await self._students.rows(tenant, model)
        if not found:
            raise RequestRefusedError("not_found", "there is no student of this name", "model")
        if (task := self._training.get(model)) is not None:
            task.cancel()
        if found[0].row.state == "retired":
            return found[0].row
        await self._leave(found[0])
        await self._students.retire(model, self._platform.now_ms())
        return (await self._students.rows(tenant, model))[0].row

    async def erase(self, tenant: str) -> int:
        """Removes a tenant's samples, and its students wherever they are; returns how many rows that was.

        What stands in the roster without a row goes too.
        """
        for student in await self._students.rows(tenant):
            if (task := self._training.get(student.row.model)) is not None:
                task.cancel()
            if student.row.state != "retired":
                await self._leave(student)
        for left in students_of(await self._roster(), tenant):
            await self._leave(left)
        _, gone = await self._students.erase(tenant)
        return gone

    async def _leave(self, student: Kept) -> None:
        model = student.row.model
        if student.row.kind == "endpoint":
            await self._registering.leave(model, student.row.tenant)
            return
        await ask(
            self._platform.connection,
            s.SVC_ROUTER_STUDENT,
            StudentRetire(model=model),
            ModelSetReply,
            timeout_seconds=ASK_SECONDS,
        )
        await self._content.remove(student.content)

    async def _train(self, row: StudentRow, grants: list[str], tier: str, before: Kept | None) -> None:
        is_told = False
        try:
            async with self._turn, self._students.claimed(row.model) as mine:
                is_told = True
                if mine:
                    await self._try(row, grants, tier, before)
                else:
                    # Another replica is at it, and tells how it ended.
                    log.info("student is being made elsewhere", model=row.model)
        except Exception as error:  # whatever failed, the row must not say for ever that the student is being made
            if is_told:
                # The claim ends with its connection; what became of the student stands as it was told.
                log.warning("claim of a student not given back", model=row.model, error=type(error).__name__)
                return
            log.exception("student not made", model=row.model)
            await self._failed(row, before, "internal_error")

    async def _try(self, row: StudentRow, grants: list[str], tier: str, before: Kept | None) -> None:
        try:
            await self._make(row, grants, tier, before)
        except (HeadError, PromptError) as error:
            await self._failed(row, before, str(error))
        except (ContractError, BusError) as error:
            await self._failed(row, before, error.message if isinstance(error, RequestRefusedError) else str(error))
        except Exception:  # whatever failed, the row must not say for ever that the student is being made
            log.exception("student not made", model=row.model)
            await self._failed(row, before, "internal_error")

    async def _failed(self, row: StudentRow, before: Kept | None, reason: str) -> None:
        """Says why a student was not made; one that served before goes on as it is."""
        log.warning("student not made", model=row.model, error=reason)
        about = {"reason": reason[:300], "samples": row.samples}
        if before is not None:
            standing = msgspec.structs.replace(before.row, state="serving", **about)
            await self._students.put(standing, before.content, before.shown)
            if row.model in await self._students.outdated(self._samples.confidence_min):
                # What it shows is not to be shown any more, so that it cannot go on as it is.
                await self._leave(before)
                await self._students.retire(row.model, self._platform.now_ms())
        else:
            await self._students.put(msgspec.structs.replace(row, state="failed", **about), "")

    async def _make(self, row: StudentRow, grants: list[str], tier: str, before: Kept | None) -> None:
        tenant, settings = row.tenant, self._platform.settings
        async with self._samples.turn:
            samples = await self._samples.rows(tenant, row.domain)
            read = await opened(self._platform.keyring, tenant, samples)
        row = msgspec.structs.replace(row, samples=len(samples))
        try:
            content = await (self._prompt(row, read) if row.kind == "prompt" else self._head(row, read))
        except (HeadError, PromptError) as error:
            # So many told nothing; twice as many may.
            await self._failed(row, before, str(error))
            return
        sealed = self._platform.keyring.seal(tenant, content.content, f"student:{row.model}")
        claim = await self._content.put(_encode(sealed))
        quotas = settings.tiers.get(tier)
        introduced = StudentIntroduce(
            model=row.model,
            domain=row.domain,
            student=StudentOf(
                kind=row.kind,
                tenants=[tenant, *grants],
                content=claim,
                confidence=row.confidence,
                made_at_ms=row.made_at_ms,
                **content.student,
            ),
            models_max=quotas.models_max if quotas is not None else 1,
            domain_max=settings.evolution.max_models_per_domain,
        )
        try:
            await ask(
                self._platform.connection, s.SVC_ROUTER_STUDENT, introduced, ModelSetReply, timeout_seconds=ASK_SECONDS
            )
        except RequestRefusedError:
            await self._content.remove(claim)
            raise
        serving = msgspec.structs.replace(row, state="serving", digest=digest_of(content.content), **content.row)
        await self._students.put(serving, claim, content.shown)
        if before is not None and before.content != claim:
            try:
                await self._content.remove(before.content)
            except BusError as error:
                # The student serves with its new content all the same.
                log.warning("earlier content not removed", model=row.model, error=type(error).__name__)
        log.info("student made", model=row.model, kind=row.kind, samples=serving.samples)

    async def _head(self, row: StudentRow, read: Sequence[Opened]) -> Content:
        head = await made(self._embed, row.tenant, read)
        told = {"samples": head.trained, "labels": len(head.head.labels)}
        return Content(head.content, {}, {**told, "held_out": head.held_out, "held_out_right": head.held_out_right})

    async def _prompt(self, row: StudentRow, read: Sequence[Opened]) -> Content:
        found = await prompted(self._embed, row.tenant, read, row.base)
        student = {"base": row.base, "prompt_bytes": size_of(found.prompt)}
        return Content(pack(found.prompt), student, {"exemplars": len(found.tasks)}, tuple(found.tasks))

    async def _roster(self) -> Roster | None:
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        return roster if isinstance(roster, Roster) else None
