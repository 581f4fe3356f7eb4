"""A fine-tuned model is asked what its export held out: once, within what learning may cost, and promoted by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, ChatMessage, Choice, encode_content
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import AttemptUsage, ProbeCompared
from collegium_contracts.money import Price, Usage
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import DistillExport, HeldOutAsk, HeldOutReply, StudentOf, StudentRow
from collegium_evolution.ranks import pair_store
from collegium_evolution.ranks.pair_store import Changed
from collegium_evolution.ranks.pairing import pairs_of
from collegium_evolution.ranks.rounds import RankRounds
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_evolution.students import examining, held_out_store, sample_store, student_store
from collegium_evolution.students.examining import (
    AT_ONCE,
    ITEMS_MAX,
    TOLD_MIN,
    UNASKED_MS,
    UNCOVERED_MS,
    WITHIN_MS,
    Examining,
    chosen,
)
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.exporting import Exports
from collegium_evolution.students.opened import Opened
from collegium_evolution.students.sample_store import Known, SampleStore
from collegium_evolution.students.samples import Sample
from collegium_evolution.students.student_store import StudentStore
from collegium_learning.distill.selecting import is_held_out
from collegium_learning.ranks.decisions import Decision, Rules
from msgspec import msgpack

PROMPT = Envelope("identity", b"", encode_content([ChatMessage("user", "where is my parcel")]))
ANSWER = Envelope("identity", b"", encode_content(Answer([Choice("delivery")])))
TUNED = StudentRow(model="tuned", tenant="acme", domain="desk", kind="endpoint", state="serving", made_at_ms=1)


def task(number: int) -> str:
    return f"tsk_{number:0>26}"


def known(number: int, **about: Any) -> Known:
    sample = Known(task(number), "desk", "big", "teacher", "pro", 0.9, 1, PROMPT, ANSWER, None)
    return sample._replace(**about)


def model(name: str, rank: Any, usd: int, **about: Any) -> ModelRecord:
    price = Price(input_picos=usd, output_picos=usd)
    return ModelRecord(
        name=name, rank=rank, pool="general", price=price, charge=price, max_output_tokens=1, context_tokens=1, **about
    )


ROSTER = [
    model("tuned", "student", 1, student=StudentOf(kind="endpoint", tenants=["acme"], made_at_ms=1)),
    model("big", "teacher", 10),
]


def compared(make: Any, number: int, *, same: bool = True) -> ProbeCompared:
    call = AttemptUsage(number=1, delivery=1, model="tuned", rank="student", usage=Usage(), duration_ms=1)
    about = make.task(str(number), domain="desk")
    return ProbeCompared(
        task=about, kind="held_out", probe=f"p{number}", at_ms=make.now_ms, same=same, model="big", rank="teacher",
        probe_model="tuned", probe_rank="student", probe_usage=call,
    )  # fmt: skip


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


async def keep(pool: asyncpg.Pool, *numbers: int, rank: str = "teacher") -> None:
    """Keeps verified samples."""
    samples = [
        Sample("acme", task(number), "desk", "big", rank, "pro", 0.9, 1, number, PROMPT, ANSWER) for number in numbers
    ]
    async with pool.acquire() as connection:
        await sample_store.add(connection, samples)


class Router:
    """Stands for the router: remembers what it was asked, and says what it is told to."""

    def __init__(self) -> None:
        self.asked: list[HeldOutAsk] = []
        self.subjects: set[str] = set()
        self.state: Any = "taken"

    async def ask(self, _connection: Any, subject: str, asked: HeldOutAsk, *_about: Any, **_more: Any) -> HeldOutReply:
        self.asked.append(asked)
        self.subjects.add(subject)
        return HeldOutReply(state=self.state)


@pytest.fixture
async def stage(pool: asyncpg.Pool, platforms: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    router, clock = Router(), SimpleNamespace(now=1_000)
    monkeypatch.setattr(examining, "ask", router.ask)
    platform = await platforms(now_ms=lambda: clock.now)
    models = Bucket(platform.connection, s.KV_MODELS)
    await models.put(s.ROSTER_KEY, codec.encode(Roster(version=1, models=ROSTER)))
    await StudentStore(pool).put(TUNED, "")
    await keep(pool, 1, 2, 3)
    await held_out_store.begin(pool, "tuned", "acme", [task(1), task(2), task(3)], 0)
    looking = Examining(platform, pool, SampleStore(pool, 0.85))
    return SimpleNamespace(looking=looking, router=router, clock=clock, platform=platform, models=models)


async def fold(pool: asyncpg.Pool, *probes: ProbeCompared) -> None:
    """Folds what was compared."""
    events = [
        Folding(number, number, (), None, None, "acme", None, pairs_of(probe)) for number, probe in enumerate(probes, 1)
    ]
    await Store(pool, "scoreboard").fold(events)


async def say(pool: asyncpg.Pool, *numbers: int) -> None:
    """Lets a client say that answers were right."""
    statement = "INSERT INTO evolution.outcomes VALUES ('acme', $1, 'client', 'big', 'desk', 'teacher', 1, 1)"
    await pool.executemany(statement, [(task(number),) for number in numbers])


async def states(pool: asyncpg.Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT state, count(*) AS items FROM evolution.held_out GROUP BY state")
    return {row["state"]: row["items"] for row in rows}


def test_teachers_answers_are_asked_about_the_same_and_so_many_whoever_chooses() -> None:
    held = [known(number) for number in range(2 * ITEMS_MAX)]
    found = chosen([*held, known(9_999, rank="student"), known(9_998, model="person:p1", rank="")])
    assert len(found) == ITEMS_MAX
    assert not {task(9_999), task(9_998)} & set(found)
    assert chosen(reversed(held)) == found


def test_what_somebody_said_was_right_is_asked_alone_where_there_is_enough() -> None:
    told = [known(number, told=True) for number in range(TOLD_MIN)]
    sure = [known(number) for number in range(100, 200)]
    assert set(chosen([*told, *sure])) == {one.task_id for one in told}
    assert len(chosen([*told[1:], *sure])) == TOLD_MIN - 1 + 100


def test_a_question_that_is_held_out_is_told_in_no_pair_whoever_asked_it_again() -> None:
    held = next(number for number in range(1_000) if is_held_out(task(number)))
    free = [number for number in range(1_000) if not is_held_out(task(number))][:4]

    def said(number: int, text: str, answer: str, worth: float) -> Opened:
        about = known(number, worth=worth, model=answer)
        return Opened(about, text, [ChatMessage("user", text)], answer, "", None)

    samples = [
        said(held, "Where is it?", "good", 1.0), said(free[0], "where  is it?", "good", 1.0),
        said(free[1], "where is it?", "bad", 0.0), said(free[2], "who are you", "good", 1.0),
        said(free[3], "who are you", "bad", 0.0),
    ]  # fmt: skip
    exports: Any = object.__new__(Exports)
    exports._samples = SimpleNamespace(confidence_min=0.85)
    left_out: Counter[str] = Counter()
    written = exports._pairs(DistillExport(tenant="acme", shape="preference"), samples, {}, {}, left_out)
    assert [one.known.task_id for one in written.held] == [task(held)]
    assert written.lines
    assert not [line for line in written.lines if b"here" in line]
    assert left_out["like_held_out"] == 2


async def test_each_item_is_asked_once_beside_the_answer_that_stands(stage: SimpleNamespace) -> None:
    await stage.looking.look()
    await stage.looking.look()
    assert sorted(one.of for one in stage.router.asked) == [task(1), task(2), task(3)]
    assert stage.router.subjects == {s.probes_of_shard(ids.shard_of("acme"))}
    one = stage.router.asked[0]
    assert (one.tenant, one.model, one.gave, one.gave_rank, one.tier) == ("acme", "tuned", "big", "teacher", "pro")
    assert one.prompt == PROMPT
    sealed = msgpack.decode(await stage.platform.claims.get(one.answer), type=Envelope)
    assert sealed == ANSWER


async def test_what_is_no_verified_answer_of_a_teacher_any_more_is_not_asked(
    stage: SimpleNamespace, pool: asyncpg.Pool
) -> None:
    statement = "INSERT INTO evolution.outcomes VALUES ('acme', $1, 'client', 'big', 'desk', 'teacher', 0, 1)"
    await pool.execute(statement, task(1))
    await pool.execute("UPDATE evolution.samples SET rank = 'ta' WHERE task_id = $1", task(2))
    await pool.execute("DELETE FROM evolution.samples WHERE task_id = $1", task(3))
    await stage.looking.look()
    assert stage.router.asked == []
    [report] = await held_out_store.report(pool)
    assert (report.items, report.gone) == (3, 3)


async def test_what_the_budget_does_not_cover_waits_and_the_report_says_so(
    stage: SimpleNamespace, pool: asyncpg.Pool
) -> None:
    stage.router.state = "not_covered"
    await stage.looking.look()
    await stage.looking.look()
    assert len(stage.router.asked) == 1, "the others are put off together"
    [report] = await held_out_store.report(pool)
    assert report.line == (
        "tuned for acme: 0 of 3 held out compared, 0 as the teacher; the others wait for the budget of learning"
    )
    stage.router.state = "taken"
    stage.clock.now += 2 * UNCOVERED_MS
    await stage.looking.look()
    assert len(stage.router.asked) == 4
    [report] = await held_out_store.report(pool)
    assert report.waits == ""


async def test_what_came_of_it_is_shown_and_promotes_by_the_same_test(
    stage: SimpleNamespace, pool: asyncpg.Pool, make: Any
) -> None:
    items = range(1, 301)
    await say(pool, *items)
    await held_out_store.begin(pool, "tuned", "acme", [task(number) for number in items], 0)
    probes = [compared(make, number, same=number % 100 != 0) for number in items]
    await fold(pool, *probes)
    [report] = await held_out_store.report(pool)
    assert (report.items, report.compared, report.as_good) == (300, 300, 297)
    [shown] = await StudentStore(pool).rows("acme")
    assert (shown.row.held_out_asked, shown.row.held_out_right) == (300, 297)
    changing: Any = SimpleNamespace()
    rounds = RankRounds(stage.platform, pool, stage.models, changing, Rules)

    async def decided() -> Decision:
        found = await rounds.decisions(ROSTER, make.now_ms + 1)
        return next(one for one in found if one.model == "tuned" and one.tenant == "acme")

    up = await decided()
    assert (up.verdict, up.after, up.ground) == ("promote", "ta", "as_good_and_cheaper")
    assert (up.pairs.ties, up.pairs.losses) == (297, 3)
    await pool.execute("DELETE FROM evolution.outcomes WHERE task_id <> ALL($1::text[])", [task(1), task(2)])
    held = await decided()
    assert held.verdict == "stay", "what a teacher was merely sure of promotes nobody"
    assert "2 of 30 pairs about what no teacher was sure of" in held.reason


async def test_no_more_is_asked_while_so_much_is_out_and_what_nobody_answered_is_asked_again(
    stage: SimpleNamespace, pool: asyncpg.Pool, make: Any
) -> None:
    everything = range(1, AT_ONCE + 6)
    await keep(pool, *everything)
    await held_out_store.begin(pool, "tuned", "acme", [task(number) for number in everything], 0)
    await stage.looking.look()
    await stage.looking.look()
    assert len(stage.router.asked) == AT_ONCE, "as many are out as may be"
    answered = stage.router.asked[0]
    await fold(pool, compared(make, int(answered.of.removeprefix("tsk_"))))
    await stage.looking.look()
    assert len(stage.router.asked) == AT_ONCE + 1
    # An outage: nobody is answered, ever.
    for _ in range(20):
        stage.clock.now += max(WITHIN_MS, held_out_store.AGAIN_MS)
        await stage.looking.look()
    numbers: dict[str, list[int]] = {}
    for one in stage.router.asked:
        numbers.setdefault(one.of, []).append(one.number)
    assert numbers.pop(answered.of) == [1]
    assert len(numbers) == len(everything) - 1
    assert all(tries == [1, 2, 3] for tries in numbers.values())
    assert await states(pool) == {"compared": 1, "unanswered": len(everything) - 1}
    [report] = await held_out_store.report(pool)
    assert report.line == "tuned for acme: 1 of 25 held out compared, 1 as the teacher, 24 unanswered"


async def test_nobody_is_asked_beside_who_stands_above_no_more(stage: SimpleNamespace, pool: asyncpg.Pool) -> None:
    for other in (None, model("big", "student", 10), model("big", "teacher", 10, enabled=False)):
        roster = Roster(version=1, models=[ROSTER[0], *([other] if other else [])])
        await stage.models.put(s.ROSTER_KEY, codec.encode(roster))
        await stage.looking.look()
        stage.clock.now += UNASKED_MS
    assert stage.router.asked == []
    assert await states(pool) == {"waiting": 3}
    [report] = await held_out_store.report(pool)
    assert "some wait for who answered them" in report.line
    await stage.models.put(s.ROSTER_KEY, codec.encode(Roster(version=1, models=ROSTER)))
    await stage.looking.look()
    assert len(stage.router.asked) == 3


async def test_what_was_said_of_the_model_before_says_nothing_of_the_one_made_anew(
    stage: SimpleNamespace, pool: asyncpg.Pool, make: Any
) -> None:
    await fold(pool, compared(make, 1), compared(make, 2))
    [shown] = await StudentStore(pool).rows("acme")
    assert shown.row.held_out_asked == 2
    await StudentStore(pool).put(msgspec.structs.replace(TUNED, domain="", made_at_ms=make.now_ms + 1), "")
    [shown] = await StudentStore(pool).rows("acme")
    assert shown.row.held_out_asked == 0
    made = [Changed(*one) for one in await student_store.made(pool, "endpoint")]
    assert await pair_store.counted(pool, 0, 0.01, made[:0])
    assert not [one for one in await pair_store.counted(pool, 0, 0.01, made) if one.model == "tuned"]
    await stage.looking.look()
    assert [one.made_at_ms for one in stage.router.asked] == [make.now_ms + 1] * 3, "all are asked of it again"


async def test_it_goes_with_its_tenant_and_its_export_keeps_which_they_were(pool: asyncpg.Pool) -> None:
    exports = ExportStore(pool)
    manifest = {"id": "exp_1", "tenant": "acme", "domain": "desk", "made_ms": 1}
    await exports.put(manifest, "claim", [task(1)])
    assert await exports.held("exp_1", "acme") == [task(1)]
    assert await exports.held("exp_1", "globex") == []
    await StudentStore(pool).put(TUNED, "")
    await held_out_store.begin(pool, "tuned", "acme", [task(1)], 0)
    await StudentStore(pool).erase("acme")
    assert await held_out_store.report(pool) == []
