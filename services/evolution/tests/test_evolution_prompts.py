"""Prompt students: whom one is made for, which domains get one, and when what one shows is not to be shown any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.content import Answer, ChatMessage, Choice, encode_content
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Feedback
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import StudentOf, StudentRow, StudentSpawn
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_evolution.students.prompting import base_of
from collegium_evolution.students.rounds import StudentRounds, prompts_wanted, wanted
from collegium_evolution.students.sample_store import Many, SampleStore
from collegium_evolution.students.samples import sample_of
from collegium_evolution.students.student_store import StudentStore

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


def test_a_prompt_is_for_the_cheapest_below_the_teachers_or_the_one_that_is_named():
    def model(name: str, price: int, **fields: Any) -> ModelRecord:
        paid = Price(input_picos=price, output_picos=price)
        values: dict[str, Any] = {"rank": "student", "pool": "p", "max_output_tokens": 9, "context_tokens": 9} | fields
        return ModelRecord(name=name, price=paid, charge=paid, **values)

    head = StudentOf(kind="head", tenants=["acme"])
    models = [
        model("teacher", 10, rank="teacher"), model("dear", 12), model("small", 3, rank="ta"),
        model("cheap", 1, drained=True), model("law", 1, domains=["law"]), model("head.acme.x", 0, student=head),
        model("embedder", 0, kind="embedding"),
    ]  # fmt: skip
    roster = Roster(version=1, models=models)
    assert base_of(roster, "acme", "desk", "") == "small"
    assert base_of(roster, "acme", "law", "") == "law"
    assert base_of(roster, "acme", "desk", "teacher") == "teacher"
    for wanted_base in ("nobody", "head.acme.x", "cheap", "embedder", "law"):
        with pytest.raises(RequestRefusedError) as refused:
            base_of(roster, "acme", "desk", wanted_base)
        assert (refused.value.code, refused.value.param) == ("no_eligible_model", "base")
    for nobody in (None, Roster(version=1, models=models[:2])):
        with pytest.raises(RequestRefusedError):
            base_of(nobody, "acme", "desk", "")


def test_a_round_makes_prompts_of_gaps_and_of_what_costs_where_no_head_serves():
    def row(domain: str, state: Any, kind: Any = "head", samples: int = 0) -> StudentRow:
        return StudentRow(
            model=f"{kind}.{domain}",
            tenant="acme",
            domain=domain,
            kind=kind,
            state=state,
            made_at_ms=0,
            samples=samples,
        )

    many = [
        Many("acme", domain, count, "pro")
        for domain, count in (
            ("gap", 60), ("small", 60), ("untried", 300), ("labels", 300), ("words", 300), ("made", 300), ("gone", 300),
            ("doubled", 300),
        )
    ]  # fmt: skip
    known = [row("labels", "serving"), *(row(domain, "failed") for domain in ("words", "made", "gone", "doubled"))]
    known += [row("made", "serving", "prompt", 290), row("gone", "retired", "prompt", 1)]
    known += [row("doubled", "serving", "prompt", 150)]
    found = prompts_wanted(many, known, {("acme", "gap")}, {"pro"})
    assert [one.domain for one in found] == ["gap", "doubled", "words"]
    assert prompts_wanted(many, known, {("acme", "gap")}, {"free"}) == []
    assert [one.domain for one in wanted(many[:3], [row("untried", "serving", "prompt")], set(), {"pro"})][:1] == [
        "untried"
    ]


async def test_a_prompt_that_shows_what_was_objected_to_is_outdated(pool: asyncpg.Pool, make: Any) -> None:
    store, kept = Store(pool, "scoreboard"), StudentStore(pool)
    tasks = [settled(make, str(number)) for number in range(3)]
    await store.fold([folding(make, number, message) for number, message in enumerate(tasks, 1)])
    await store.fold([folding(make, 10 + at, told(message, "client", 1.0)) for at, message in enumerate(tasks)])
    row = StudentRow(
        model="prompt.acme.x", tenant="acme", domain="desk", kind="prompt", state="serving", made_at_ms=1, base="small"
    )
    await kept.put(row, "claim", [message.task.id for message in tasks])
    assert await kept.outdated(0.85) == set()
    (stands,) = await kept.rows("acme")
    assert (stands.row.base, stands.row.exemplars, stands.content) == ("small", 3, "claim")
    await store.fold([folding(make, 20, told(tasks[0], "outcome", 0.1))])
    assert await kept.outdated(0.85) == {"prompt.acme.x"}
    await kept.put(row, "claim", [message.task.id for message in tasks[1:]])
    assert await kept.outdated(0.85) == set()
    await SampleStore(pool, 0.85).forget_beyond(per_domain=1)
    assert await kept.outdated(0.85) == {"prompt.acme.x"}, "what is gone is shown no longer"
    for state, is_shown in (("training", True), ("failed", True), ("retired", False)):
        await kept.put(msgspec.structs.replace(row, state=state), "claim", [tasks[0].task.id])
        assert bool(await kept.outdated(0.85)) == is_shown, f"with content it serves, {state} or not"


async def test_what_a_person_said_is_shown_without_any_word(pool: asyncpg.Pool, make: Any) -> None:
    kept = StudentStore(pool)
    task = msgspec.structs.replace(settled(make, "1"), model="person:experts", rank="person", confidence=None)
    await Store(pool, "scoreboard").fold([folding(make, 1, task)])
    row = StudentRow(model="prompt.x", tenant="acme", domain="desk", kind="prompt", state="serving", made_at_ms=1)
    await kept.put(row, "claim", [task.task.id])
    assert await kept.outdated(0.85) == set()


async def test_a_prompt_whose_making_anew_was_interrupted_serves_what_it_served(pool: asyncpg.Pool) -> None:
    kept = StudentStore(pool)
    row = StudentRow(model="prompt.x", tenant="acme", domain="desk", kind="prompt", state="training", made_at_ms=1)
    await kept.put(row, "claim", ["t"])
    await kept.put(msgspec.structs.replace(row, model="prompt.y"), "")
    await kept.give_up(2)
    found = {one.row.model: (one.row.state, one.row.reason) for one in await kept.rows("acme")}
    assert found == {"prompt.x": ("serving", "interrupted"), "prompt.y": ("failed", "interrupted")}


async def test_a_round_makes_an_outdated_prompt_anew_and_retires_one_that_cannot_be(
    pool: asyncpg.Pool, platforms: Any
) -> None:
    platform, kept, samples = await platforms(), StudentStore(pool), SampleStore(pool, 0.85)
    for domain in ("made", "gone"):
        row = StudentRow(
            model=f"prompt.{domain}", tenant="acme", domain=domain, kind="prompt", state="serving", made_at_ms=1,
            base="small",
        )  # fmt: skip
        await kept.put(row, "claim", ["nosuch"])
    spawned: list[StudentSpawn] = []
    retired: list[str] = []

    async def spawn(asked: StudentSpawn) -> None:
        if asked.domain == "gone":
            raise RequestRefusedError("too_few_samples", "few", "domain")
        spawned.append(asked)

    async def retire(name: str, _tenant: str) -> None:
        retired.append(name)

    students: Any = SimpleNamespace(spawn=spawn, retire=retire)
    lines = await StudentRounds(platform, pool, samples, kept, students).run("cyc_1")
    assert [(one.domain, one.kind, one.base) for one in spawned] == [("made", "prompt", "small")]
    assert retired == ["prompt.gone"]
    assert len(lines) == 2
