"""Students that come and go: by a row of their own, at their own tenant's word, and without a rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.errors import NoAnswerError, RequestRefusedError
from collegium_contracts.envelope import Envelope
from collegium_contracts.evolution import ModelSetReply
from collegium_contracts.messages import Message
from collegium_contracts.money import Price
from collegium_contracts.roster_requests import ModelAdd, ModelRemove, RegistrationReply
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import StudentIntroduce, StudentOf, StudentRegister, StudentRetire, StudentRow
from collegium_contracts.students import StudentSpawn as Spawn
from collegium_evolution.ranks import pair_store
from collegium_evolution.ranks.pairing import ComparedPair
from collegium_evolution.students import held_out_store, registering, spawning
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.registering import Registering
from collegium_evolution.students.sample_store import Known, SampleStore
from collegium_evolution.students.spawning import Content, Students, name_of, students_of
from collegium_evolution.students.student_store import StudentStore

MANIFEST = {"id": "exp_1", "domain": "desk", "made_ms": 5, "rows": 3, "held_out": {"rows": 1}, "sha256": "ab"}
SPEC = msgspec.json.encode(
    {
        "name": "tuned",
        "base_url": "https://x.example/v1",
        "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"},
    }
)
ASKED = StudentRegister(tenant="acme", export="exp_1", spec=SPEC, tier="pro")


class Router:
    """Stands for the router: remembers what it was asked, and the row that stood then; refuses with ``code``."""

    def __init__(self, kept: StudentStore) -> None:
        self.kept = kept
        self.asked: list[Message] = []
        self.stood: list[str] = []
        self.error: Exception | None = None

    async def ask(self, _connection: Any, _subject: str, asked: Any, _reply: Any, **_fields: Any) -> Any:
        self.asked.append(asked)
        if isinstance(asked, ModelAdd):
            self.stood += [one.row.state for one in await self.kept.rows(None, "tuned")]
        if self.error is not None:
            raise self.error
        if isinstance(asked, ModelAdd | ModelRemove):
            return RegistrationReply(model="tuned", version=2)
        return ModelSetReply(model=asked.model, version=2, is_new=True)


class Shelf:
    """Stands for the bucket of contents."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    async def put(self, _content: bytes) -> str:
        return "new"

    async def remove(self, claim: str) -> None:
        self.removed.append(claim)


def row(model: str = "tuned", tenant: str = "acme", **about: Any) -> StudentRow:
    fields: dict[str, Any] = {"domain": "desk", "kind": "endpoint", "state": "serving", "made_at_ms": 1} | about
    return StudentRow(model=model, tenant=tenant, **fields)


@pytest.fixture
async def stage(database_url: str, platforms: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SimpleNamespace]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    kept, exports, samples = StudentStore(pool), ExportStore(pool), SampleStore(pool, 0.85)
    for tenant in ("acme", "globex"):
        await exports.put(MANIFEST | {"tenant": tenant, "id": f"exp_{'1' if tenant == 'acme' else '2'}"}, "claim")
    router, shelf = Router(kept), Shelf()
    for module in (registering, spawning):
        monkeypatch.setattr(module, "ask", router.ask)
    registers = Registering(platform := await platforms(), pool, kept, exports)
    students: Any = Students(platform, samples, kept, registers)
    students._content = shelf
    yield SimpleNamespace(
        pool=pool, kept=kept, samples=samples, router=router, shelf=shelf, registering=registers, students=students
    )
    await students.stop()
    await pool.close()


async def test_a_registered_student_has_a_row_before_the_router_is_asked(stage: SimpleNamespace) -> None:
    assert (await stage.registering.register(ASKED)).state == "serving"
    assert stage.router.stood == ["training"]
    assert [one.row.state for one in await stage.kept.rows("acme")] == ["serving"]


async def test_the_row_stays_where_nobody_knows_what_became_of_it_and_goes_with_a_refusal(
    stage: SimpleNamespace,
) -> None:
    stage.router.error = RequestRefusedError("probe_failed", "no")
    with pytest.raises(RequestRefusedError):
        await stage.registering.register(ASKED)
    assert await stage.kept.rows("acme") == []
    await stage.kept.put(row(samples=7), "")
    await stage.kept.retire("tuned", 77)
    with pytest.raises(RequestRefusedError):
        await stage.registering.register(ASKED)
    (before,) = await stage.kept.rows("acme")
    assert (before.row.state, before.row.retired_at_ms, before.row.samples) == ("retired", 77, 7)
    stage.router.error = NoAnswerError("late")
    with pytest.raises(NoAnswerError):
        await stage.registering.register(ASKED)
    assert [one.row.state for one in await stage.kept.rows("acme")] == ["training"]


async def test_a_name_of_another_tenant_is_refused_before_the_router_is_asked(stage: SimpleNamespace) -> None:
    await stage.kept.put(row(), "")
    await stage.kept.retire("tuned", 77)
    with pytest.raises(RequestRefusedError) as refused:
        await stage.registering.register(msgspec.structs.replace(ASKED, tenant="globex", export="exp_2"))
    assert (refused.value.code, stage.router.asked) == ("already_exists", [])


async def test_a_student_leaves_once_and_says_whose_it_is(stage: SimpleNamespace) -> None:
    await stage.kept.put(row(), "")
    assert (await stage.students.retire("tuned", "acme")).state == "retired"
    assert stage.router.asked == [ModelRemove(model="tuned", owner="acme")]
    assert (await stage.students.retire("tuned", "acme")).state == "retired"
    await stage.students.erase("acme")
    assert len(stage.router.asked) == 1, "a retired row asks nothing of the router"


def model(name: str, kind: Any, *tenants: str) -> ModelRecord:
    return ModelRecord(
        name=name, rank="student", pool="general", price=Price(), charge=Price(), max_output_tokens=1,
        context_tokens=1, student=StudentOf(kind=kind, tenants=list(tenants), content=f"of {name}"),
    )  # fmt: skip


async def test_an_erasure_removes_students_without_a_row(
    stage: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [model("a", "endpoint", "acme"), model("b", "head", "acme", "globex"), model("c", "head", "globex")]

    async def roster() -> Roster:
        return Roster(version=1, models=models)

    monkeypatch.setattr(stage.students, "_roster", roster)
    await stage.students.erase("acme")
    assert stage.router.asked == [ModelRemove(model="a", owner="acme"), StudentRetire(model="b")]
    assert stage.shelf.removed == ["of b"]
    assert students_of(None, "acme") == []


@pytest.mark.parametrize("state", ["training", "failed"])
async def test_what_served_before_an_interruption_is_removed_once_it_is_made_anew(
    stage: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    name = name_of("acme", "desk")
    await stage.kept.put(row(name, kind="head", state=state), "old")
    sealed = Envelope("identity", b"", b"")

    async def rows(*_about: Any, **_fields: Any) -> list[Known]:
        return [Known("t", "desk", "big", "teacher", "pro", 1.0, 1, sealed, sealed, 1.0)] * spawning.SAMPLES_MIN

    async def head(*_about: Any) -> Content:
        return Content(b"head", {}, {})

    monkeypatch.setattr(stage.samples, "rows", rows)
    monkeypatch.setattr(stage.students, "_head", head)
    await stage.students.spawn(Spawn(tenant="acme", domain="desk"))
    await asyncio.gather(*stage.students._training.values())
    (made,) = await stage.kept.rows("acme")
    assert (made.row.state, made.content, stage.shelf.removed) == ("serving", "new", ["old"])
    assert isinstance(stage.router.asked[0], StudentIntroduce)


async def test_of_two_replicas_one_makes_a_student(stage: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    name = name_of("acme", "desk")
    sealed = Envelope("identity", b"", b"")

    async def rows(*_about: Any, **_fields: Any) -> list[Known]:
        return [Known("t", "desk", "big", "teacher", "pro", 1.0, 1, sealed, sealed, 1.0)] * spawning.SAMPLES_MIN

    async def head(*_about: Any) -> Content:
        return Content(b"head", {}, {})

    monkeypatch.setattr(stage.samples, "rows", rows)
    monkeypatch.setattr(stage.students, "_head", head)
    async with stage.kept.claimed(name) as mine:
        assert mine
        await stage.students.spawn(Spawn(tenant="acme", domain="desk"))
        await asyncio.gather(*stage.students._training.values())
        assert stage.router.asked == [], "the other one is at it"
    await stage.students.spawn(Spawn(tenant="acme", domain="desk"))
    await asyncio.gather(*stage.students._training.values())
    assert [type(one) for one in stage.router.asked] == [StudentIntroduce]


async def test_a_student_made_stays_made_where_its_claim_cannot_be_given_back(
    stage: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.kept.put(row(name_of("acme", "desk"), kind="head"), "old")
    sealed = Envelope("identity", b"", b"")

    async def rows(*_about: Any, **_fields: Any) -> list[Known]:
        return [Known("t", "desk", "big", "teacher", "pro", 1.0, 1, sealed, sealed, 1.0)] * spawning.SAMPLES_MIN

    async def head(*_about: Any) -> Content:
        return Content(b"head", {}, {})

    async def away(_claim: str) -> None:
        raise NoAnswerError("away")

    @asynccontextmanager
    async def claimed(_model: str) -> AsyncGenerator[bool]:
        yield True
        raise asyncpg.ConnectionDoesNotExistError("gone at COMMIT")

    monkeypatch.setattr(stage.samples, "rows", rows)
    monkeypatch.setattr(stage.students, "_head", head)
    monkeypatch.setattr(stage.shelf, "remove", away)
    monkeypatch.setattr(stage.kept, "claimed", claimed)
    await stage.students.spawn(Spawn(tenant="acme", domain="desk"))
    await asyncio.gather(*stage.students._training.values())
    (made,) = await stage.kept.rows("acme")
    assert (made.row.state, made.row.reason, made.content) == ("serving", "", "new")


async def test_a_student_whose_claim_cannot_be_had_is_told_as_failed(
    stage: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = Envelope("identity", b"", b"")

    async def rows(*_about: Any, **_fields: Any) -> list[Known]:
        return [Known("t", "desk", "big", "teacher", "pro", 1.0, 1, sealed, sealed, 1.0)] * spawning.SAMPLES_MIN

    @asynccontextmanager
    async def claimed(_model: str) -> AsyncGenerator[bool]:
        raise asyncpg.ConnectionDoesNotExistError("gone")
        yield True

    monkeypatch.setattr(stage.samples, "rows", rows)
    monkeypatch.setattr(stage.kept, "claimed", claimed)
    await stage.students.spawn(Spawn(tenant="acme", domain="desk"))
    await asyncio.gather(*stage.students._training.values())
    (made,) = await stage.kept.rows("acme")
    assert (made.row.state, made.row.reason) == ("failed", "internal_error")


async def test_pairs_of_a_name_go_with_its_model_and_before_another_takes_it(stage: SimpleNamespace) -> None:
    async def known() -> set[tuple[str, str, str]]:
        rows = await stage.pool.fetch("SELECT tenant, model, other FROM evolution.pairs")
        return {tuple(found) for found in rows}

    pairs = [
        ComparedPair("t1", "acme", "desk", "tuned", "big", 1.0, 1.0, "held_out", 1),
        ComparedPair("t1", "acme", "desk", "small", "tuned", 1.0, 1.0, "shadow", 1),
        ComparedPair("t1", "acme", "desk", "small", "big", 1.0, 1.0, "shadow", 1),
        ComparedPair("t1", "globex", "desk", "tuned", "big", 1.0, 1.0, "shadow", 1),
    ]
    others = {("acme", "small", "big"), ("globex", "tuned", "big")}
    await pair_store.add(stage.pool, pairs)
    stage.router.error = RequestRefusedError("already_exists", "another model's")
    with pytest.raises(RequestRefusedError):
        await stage.registering.register(ASKED)
    assert len(await known()) == 4, "what is refused takes nothing away"
    stage.router.error = None
    await held_out_store.begin(stage.pool, "tuned", "acme", ["of the one before"], 0)
    await stage.registering.register(ASKED)
    assert await known() == others
    assert await held_out_store.report(stage.pool) == []
    await pair_store.add(stage.pool, pairs[:2])
    await stage.students.retire("tuned", "acme")
    assert await known() == others
