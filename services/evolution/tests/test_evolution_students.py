"""What of the events may be learned from, how it is kept and verified, and which domains get a student."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.content import Answer, ChatMessage, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.experiments import Arm, Trial
from collegium_contracts.gates import Gated
from collegium_contracts.messages import Feedback
from collegium_contracts.parts import Probe
from collegium_contracts.routing import Route
from collegium_contracts.students import DistillExport, StudentRow
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_evolution.students import exporting, sample_store
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.exporting import Exports
from collegium_evolution.students.making import labelled
from collegium_evolution.students.opened import Opened, opened
from collegium_evolution.students.rounds import wanted
from collegium_evolution.students.sample_store import KEPT_MS, Known, Many, SampleStore
from collegium_evolution.students.samples import sample_of
from collegium_evolution.students.spawning import name_of
from collegium_evolution.students.student_store import StudentStore
from collegium_learning.heads.head import HeadError

PROMPT = Envelope("identity", b"", encode_content([ChatMessage("user", "where is my parcel")]))


def settled(make: Any, name: str = "1", **changes: Any) -> Any:
    """A task of acme that may be learned from, with what a test changes of it."""
    about = {"collects_since_ms": 1, "domain": "desk"} | {
        key: changes.pop(key)
        for key in tuple(changes)
        if key in msgspec.structs.asdict(make.task("x")) and key != "rank"
    }
    call = {"model": "big", "rank": changes.pop("rank", "teacher")}
    message = make.settled(make.task(name, **about), [make.call(**call)])
    answer = Envelope("identity", b"", encode_content(Answer([Choice("delivery")])))
    said = {"turn": PROMPT, "output": answer, "model": "big", "rank": call["rank"]}
    return msgspec.structs.replace(message, **(said | changes))


def routed(arm: Arm, **more: Any) -> Route:
    return Route(model="big", rank="teacher", trial=Trial(id="x", arm=arm, **more))


def told(message: Any, source: Any, score: float) -> Feedback:
    return Feedback(
        id="1", task=message.task, source=source, score=score, model=message.model, rank=message.rank, at_ms=1
    )


def folding(make: Any, number: int, message: Any) -> Folding:
    stored_ns = 1_000 + number
    return Folding(number, stored_ns, [], outcome_of(message, stored_ns), sample=sample_of(message))


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def test_an_answer_to_one_plain_chat_of_a_tenant_that_agreed_is_a_sample(make: Any) -> None:
    sample = sample_of(settled(make))
    assert sample is not None
    assert (sample.tenant, sample.domain, sample.model, sample.rank, sample.prompt) == (
        "acme", "desk", "big", "teacher", PROMPT,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"collects_since_ms": 0},
        {"collects_since_ms": 2**50},
        {"conversation": "talk"},
        {"memory": "web/ada"},
        {"gated": Gated(rules=["pii@1"])},
        {"kind": "embedding"},
        {"probe": Probe(of="tsk_1")},
        {"turn": None},
        {"stop_reason": "length"},
        {"turn": Envelope("identity", b"", b"x" * 100_000)},
        {"route": routed("candidate")},
        {"route": routed("flag")},
        {"route": routed("control", instructed=True)},
    ],
    ids=repr,
)
def test_nothing_else_is(make: Any, change: dict[str, Any]) -> None:
    assert sample_of(settled(make, **change)) is None


@pytest.mark.parametrize(
    "change",
    [{"route": routed("control")}, {"route": routed("holdout")}, {"stop_reason": "answered_by_person"}],
    ids=repr,
)
def test_what_an_experiment_left_alone_and_what_a_person_said_is(make: Any, change: dict[str, Any]) -> None:
    assert sample_of(settled(make, **change)) is not None


async def test_the_least_word_verifies_and_without_any_a_teacher_that_was_sure(pool: asyncpg.Pool, make: Any) -> None:
    store, samples = Store(pool, "scoreboard"), SampleStore(pool, 0.85)
    settlements = [
        settled(make, "1"),
        settled(make, "2", confidence=0.9),
        settled(make, "3", confidence=0.9, rank="student"),
        settled(make, "4", confidence=0.9),
        settled(make, "5", rank="student"),
        settled(make, "6", tenant="globex", confidence=0.9),
    ]
    words = [
        (settlements[3], "client", 1.0),
        (settlements[3], "reviewer", 0.2),
        (settlements[4], "client", 0.9),
    ]
    events = [folding(make, number, message) for number, message in enumerate(settlements, 1)]
    events += [
        folding(make, number, told(message, source, score)) for number, (message, source, score) in enumerate(words, 20)
    ]
    for _ in range(2):
        await store.fold(events)
    verified = await samples.rows("acme", "desk")
    assert sorted(one.task_id[-1] for one in verified) == ["2", "5"]
    assert len(await samples.rows("acme", None, everything=True)) == 5
    assert [(row.domain, row.samples, row.verified) for row in await samples.counts("acme", bool)] == [("desk", 5, 2)]
    assert [(one.tenant, one.verified) for one in await samples.many(2)] == [("acme", 2)]
    students = StudentStore(pool)
    _, gone = await students.erase("acme")
    assert gone == 5
    assert await samples.rows("acme", None, everything=True) == []
    assert len(await samples.rows("globex", None)) == 1
    assert await samples.forget_old(make.now_ms + KEPT_MS + 10**9) == 1


async def test_the_newest_samples_stay_within_bounds_and_reads_end_at_so_many_bytes(
    pool: asyncpg.Pool, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, samples = Store(pool, "scoreboard"), SampleStore(pool, 0.85)
    about = [("acme", "desk")] * 7 + [("acme", "law")] * 3 + [("globex", "desk")] * 4
    messages = [
        settled(make, str(number), tenant=tenant, domain=domain, settled_at_ms=1_000 + number)
        for number, (tenant, domain) in enumerate(about, 10)
    ]
    await store.fold([folding(make, number, message) for number, message in enumerate(messages, 1)])

    async def left(tenant: str) -> list[str]:
        return [one.task_id[-2:] for one in await samples.rows(tenant, None, everything=True)]

    monkeypatch.setattr(sample_store, "REMOVED_AT_ONCE", 2)
    assert await samples.forget_beyond(per_domain=4, per_tenant=100) == 3
    assert await left("acme") == ["19", "18", "17", "16", "15", "14", "13"]
    assert await samples.forget_beyond(per_domain=4, per_tenant=5) == 2
    assert await left("acme") == ["19", "18", "17", "16", "15"]
    assert await left("globex") == ["23", "22", "21", "20"]
    assert await samples.forget_beyond() == 0
    size = await pool.fetchval("SELECT max(octet_length(prompt) + octet_length(answer)) FROM evolution.samples")
    monkeypatch.setattr(sample_store, "ROWS_BYTES_MAX", 2 * size + 1)
    assert await left("acme") == ["19", "18"]


async def test_opening_many_samples_gives_others_their_turn() -> None:
    answer = Envelope("identity", b"", encode_content(Answer([Choice("a")])))
    rows = [Known(f"t{n}", "", "m", "ta", "pro", None, 1, PROMPT, answer, None) for n in range(500)]
    opening = asyncio.create_task(opened(IdentityKeyring(), "acme", rows))
    turns = 0
    while not opening.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(opening.result()) == 500
    assert turns > 10


async def test_one_export_at_a_time_and_others_are_told_to_ask_again(
    pool: asyncpg.Pool, platforms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = SampleStore(pool, 0.85)
    exports = Exports(await platforms(), samples, ExportStore(pool))
    monkeypatch.setattr(exporting, "TURN_SECONDS", 0.01)
    async with samples.turn:
        with pytest.raises(RequestRefusedError) as refused:
            await exports.export(DistillExport(tenant="acme"))
    assert refused.value.code == "evolution_unavailable"
    with pytest.raises(RequestRefusedError) as refused:
        await exports.export(DistillExport(tenant="acme"))
    assert refused.value.code == "too_few_samples"


async def test_a_student_is_one_tenants_and_is_kept_until_it_is_retired(pool: asyncpg.Pool) -> None:
    students = StudentStore(pool)
    row = StudentRow(model="head.a.x", tenant="a", domain="x", kind="head", state="training", made_at_ms=5, by="k")
    await students.put(row, "")
    await students.put(msgspec.structs.replace(row, state="serving", samples=9), "claim")
    await students.put(msgspec.structs.replace(row, tenant="b", samples=1), "stolen")
    [kept] = await students.rows("a")
    assert (kept.row.state, kept.row.samples, kept.content) == ("serving", 9, "claim")
    assert await students.rows("b") == []
    await students.retire("head.a.x", 77)
    [kept] = await students.rows(None, "head.a.x")
    assert (kept.row.state, kept.row.retired_at_ms) == ("retired", 77)
    await students.put(row, "")
    for now_ms, state in ((5, "training"), (6, "failed")):
        await students.give_up(now_ms)
        assert [one.row.state for one in await students.rows("a")] == [state]


def known(task: str, answer: str) -> Opened:
    sealed = Envelope("identity", b"", b"")
    about = Known(task, "desk", "big", "teacher", "pro", None, 1, sealed, sealed, 1.0)
    return Opened(about, f"question {task}", [], answer)


async def test_what_cannot_be_read_or_says_nothing_is_left_out(make: Any) -> None:
    answers = [Answer([Choice("a")]), Answer([Choice("  ")]), Answer([Choice(None, "tool_calls")])]
    sealed = [Envelope("identity", b"", encode_content(one)) for one in answers]
    sealed += [Envelope("gone", b"", b""), Envelope("identity", b"", b"no json")]
    rows = [Known(f"t{n}", "", "m", "ta", "pro", None, 1, PROMPT, one, None) for n, one in enumerate(sealed)]
    found = await opened(IdentityKeyring(), "acme", rows)
    assert [(one.question, one.answer) for one in found] == [("where is my parcel", "a")]


def test_answers_that_recur_are_labels_and_prose_is_none() -> None:
    rows = labelled([known(f"{n}", "yes" if n % 2 else "no") for n in range(20)] + [known("odd", "who knows")])
    assert sorted(set(rows.labels)) == ["no", "yes"]
    with pytest.raises(HeadError, match="no labels"):
        labelled([known(f"{n}", f"a sentence of its own, number {n}") for n in range(50)])


def test_gaps_go_first_and_a_student_is_made_again_when_samples_doubled() -> None:
    def row(domain: str, state: Any = "serving", samples: int = 100) -> StudentRow:
        return StudentRow(
            model=domain, tenant="a", domain=domain, kind="head", state=state, made_at_ms=0, samples=samples
        )

    many = [Many("a", name, count, "pro") for name, count in (("big", 900), ("gap", 300), ("done", 150), ("old", 200))]
    many += [Many("free", "x", 999, "free"), Many("a", "busy", 500, "pro"), Many("a", "left", 500, "pro")]
    standing = [row("done"), row("old"), row("busy", "training"), row("left", "retired")]
    assert [one.domain for one in wanted(many, standing, {("a", "gap")}, {"pro"})] == ["gap", "big", "old"]


def test_a_name_is_one_tenants_and_one_domains() -> None:
    names = {name_of(tenant, domain) for tenant in ("a", "a-b") for domain in ("", "Law & Order", "law order", "b")}
    assert len(names) == 8
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)
