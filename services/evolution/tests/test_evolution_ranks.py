"""Ranks: what events compare, what one tenant may decide, and a change that is the roster's exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_bus.shell import Answering
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.evolution import ModelSetReply, RankChangeAsk, RankChangeRow, RankRollbackAsk, RankSet
from collegium_contracts.feedback import Feedback
from collegium_contracts.messages import AttemptUsage, ProbeCompared
from collegium_contracts.money import Price, Usage
from collegium_contracts.parts import Evidence, Probe, Said
from collegium_contracts.ranks import applying, earned, with_earned
from collegium_contracts.state import ModelRecord, Roster
from collegium_evolution.ranks import change_store, pair_store
from collegium_evolution.ranks.changing import Changing, to_undo
from collegium_evolution.ranks.pair_store import Counted
from collegium_evolution.ranks.pairing import ComparedPair, pairs_of
from collegium_evolution.ranks.rounds import RankRounds
from collegium_evolution.ranks.weighing import decide, everywhere, lately, weigh
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_learning.ranks.decisions import Rules
from collegium_runtime.audit import Audit

TIE = 0.05


def record(name: str, rank: Any = "student", usd: int = 1, **fields: Any) -> ModelRecord:
    price = Price(input_picos=usd, output_picos=usd)
    return ModelRecord(
        name=name,
        rank=rank,
        pool="general",
        price=price,
        charge=price,
        max_output_tokens=9,
        context_tokens=99,
        **fields,
    )


SCHOOL = [record("small"), record("large", "teacher", usd=10)]


def counted(wins: int, losses: int, ties: int, *, tenant: str, model: str = "small", **fields: Any) -> Counted:
    told: dict[str, Any] = {"other": "large", "domain": "maths", "kind": "shadow", "score_sum": wins + ties} | fields
    return Counted(model=model, tenant=tenant, wins=wins, losses=losses, ties=ties, **told)


def mirrored(one: Counted) -> Counted:
    swapped = {"model": one.other, "other": one.model, "wins": one.losses, "losses": one.wins}
    return one._replace(**swapped, score_sum=one.losses + one.ties)


def decided(told: list[Counted], models: list[ModelRecord] | None = None, **rules: Any) -> dict[tuple[str, str], Any]:
    models = models or SCHOOL
    told = [*told, *(mirrored(one) for one in told)]
    known = [one.evidence for one in weigh(models, told)]
    return {(one.model, one.tenant): one for one in decide(known, models, Rules(**rules))}


def evidence(camp: int, *said: tuple[str, Any, int]) -> Evidence:
    who = [Said(model=model, rank=rank, camp=of) for model, rank, of in said]
    return Evidence(answer_type="text", camp=camp, said=who, probability=0.5)


def test_a_panels_members_are_compared_by_what_was_settled(make: Any) -> None:
    settled = make.settled(make.task("1", domain="maths"), [make.call(number, model="m") for number in (1, 2, 3)])
    assert pairs_of(settled) == [], "nobody says who agreed"
    told = evidence(1, ("a", "student", 1), ("b", "ta", 2), ("c", "ta", 1), ("a", "student", 2))
    agreed = pairs_of(msgspec.structs.replace(settled, evidence=told))
    assert [(one.model, one.other, one.score, one.other_score) for one in agreed] == [
        ("a", "b", 1.0, 0.0), ("a", "c", 1.0, 1.0), ("b", "c", 0.0, 1.0),
    ]  # fmt: skip
    assert {(one.kind, one.domain, one.tenant) for one in agreed} == {("panel", "maths", "acme")}
    alone = evidence(1, ("a", "student", 1), ("b", "ta", 2))
    assert pairs_of(msgspec.structs.replace(settled, evidence=alone)) == [], "one voice is no verdict"
    failed = [msgspec.structs.replace(one, tested="failed", is_given=one.camp == 1) for one in told.said]
    untold = msgspec.structs.replace(told, said=failed, tests=2)
    assert pairs_of(msgspec.structs.replace(settled, evidence=untold)) == [], "what failed its tests is no measure"


def test_who_was_asked_first_in_a_cascade_is_compared_with_who_decided(make: Any) -> None:
    calls = [make.call(1, model="small"), make.call(2, model="small"), make.call(3, model="large", rank="teacher")]
    settled = msgspec.structs.replace(
        make.settled(make.task("1"), calls), plan="cascade", model="large", rank="teacher",
        evidence=evidence(2, ("small", "student", 1), ("small", "student", 3), ("large", "teacher", 2)),
    )  # fmt: skip
    [wrong] = pairs_of(settled)
    assert (wrong.model, wrong.other, wrong.score, wrong.other_score) == ("small", "large", 0.0, 1.0)
    same = evidence(1, ("small", "student", 1), ("small", "student", 2), ("large", "teacher", 1))
    [right] = pairs_of(msgspec.structs.replace(settled, evidence=same))
    assert (right.score, right.other_score, right.kind) == (1.0, 1.0, "escalation")
    probe = msgspec.structs.replace(settled.task, probe=Probe(of="tsk_2"))
    assert pairs_of(msgspec.structs.replace(settled, task=probe)) == [], "its comparison is told by itself"


def compared(make: Any, task: str, *, kind: Any = "shadow", same: bool | None = True, tenant: str = "acme") -> Any:
    call = AttemptUsage(number=1, delivery=1, model="m", rank="student", usage=Usage(), duration_ms=1)
    by_teacher = kind == "shadow"
    return ProbeCompared(
        task=make.task(task, domain="maths", tenant=tenant), kind=kind, probe="p", at_ms=make.now_ms, same=same,
        model="large" if by_teacher else "small", rank="teacher" if by_teacher else "student",
        probe_model="small" if by_teacher else "large", probe_rank="student" if by_teacher else "teacher",
        probe_usage=call,
    )  # fmt: skip


def test_a_probe_compares_whoever_answered_with_whoever_was_asked_again(make: Any) -> None:
    for kind in ("shadow", "audit"):
        [one] = pairs_of(compared(make, "1", kind=kind, same=False))
        assert (one.model, one.other, one.score, one.other_score, one.kind) == ("small", "large", 0.0, 1.0, kind)
    assert pairs_of(compared(make, "1", same=None)) == []


def test_equal_and_cheaper_is_promoted_for_all_by_several_tenants_and_for_itself_by_one() -> None:
    shared = decided([counted(2, 2, 396, tenant=f"t{number}") for number in range(5)])
    assert shared["small", ""].verdict == "promote"
    assert shared["small", ""].ground == "as_good_and_cheaper"
    alone = decided([counted(2, 2, 396, tenant="acme")])
    assert alone["small", ""].verdict == "stay"
    assert alone["small", "acme"].verdict == "promote"
    assert alone["large", "acme"].verdict == "stay", "nothing speaks against the teacher"


def test_a_tenant_that_lies_decides_for_itself_alone() -> None:
    honest = [counted(1, 20, 20, tenant=f"t{number}") for number in range(4)]
    lie = counted(900, 0, 0, tenant="liar")
    found = decided([*honest, lie])
    assert found["small", ""].verdict == "stay"
    assert found["small", "liar"].verdict == "promote"
    assert {key for key, one in found.items() if one.verdict != "stay"} == {("small", "liar")}
    good = [counted(2, 2, 396, tenant=f"t{number}") for number in range(6)]
    slander = counted(0, 900, 0, tenant="liar")
    assert decided([*good, slander])["small", ""].verdict == "promote"


def test_escalations_promote_and_never_demote() -> None:
    hard = [counted(0, 90, 10, tenant=f"t{number}", kind="escalation") for number in range(4)]
    models = [record("small", "teacher"), record("large", "teacher", usd=10)]
    assert decided(hard, models)["small", ""].verdict == "stay"
    audits = [one._replace(kind="audit") for one in hard]
    assert decided(audits, models)["small", ""].verdict == "demote"


def test_the_last_of_a_rank_keeps_it() -> None:
    worse = [counted(0, 90, 10, tenant=f"t{number}", kind="audit") for number in range(4)]
    models = [record("small", "teacher"), record("large", "teacher", usd=10, drained=True)]
    assert decided(worse, models)["small", ""].verdict == "stay"


def test_many_comparisons_at_once_ask_for_more() -> None:
    told = [counted(2, 2, 250, tenant="acme")]
    assert decided(told)["small", "acme"].verdict == "promote"
    many = [counted(2, 5, 43, tenant="acme", domain=f"d{number}") for number in range(400)]
    known = [one.evidence for one in weigh(SCHOOL, [*told, *many])]
    [one] = [one for one in decide(known, SCHOOL, Rules()) if one.domain == "maths" and one.tenant]
    assert one.verdict == "stay"
    assert "comparisons at once" in one.reason


def test_a_rank_earned_everywhere_becomes_the_overall_one() -> None:
    ranks: list[Any] = []
    for domain in ("a", "b", "c"):
        ranks = with_earned(ranks, domain, "", "ta")
    model = record("small", earned=ranks)
    assert everywhere(model, {"a", "b", "c"}) == "ta"
    assert everywhere(model, {"a", "b", "c", "d"}) is None
    assert everywhere(record("small", earned=ranks[:2]), {"a", "b"}) is None


def test_a_late_fall_that_one_tenant_tells_of_is_no_fall_for_all() -> None:
    fallen = [("liar", -1)] * 60 + [("t1", 0)] * 60 + [("t2", 0)] * 60
    assert lately(fallen, "liar", 0.05) > 2_000
    assert lately(fallen, "", 0.05) < 2_000
    assert lately([("t1", 0)] * 50 + [("t1", -1), ("t2", -1)] * 30, "", 0.05) > 2_000


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


async def heard(pool: asyncpg.Pool, kind: str, same: bool, score: float | None) -> tuple[int, int, int]:
    """Returns how a pair counts for the cheaper model once somebody said what the settled answer is worth."""
    await pool.execute("TRUNCATE evolution.pairs, evolution.outcomes")
    pair = ComparedPair("tsk_1", "acme", "d", "small", "large", float(same), 1.0, kind, 1)  # type: ignore[arg-type]
    await pair_store.add(pool, [pair, pair])
    if score is not None:
        await pool.execute(
            "INSERT INTO evolution.outcomes VALUES ('acme', 'tsk_1', 'client', 'm', 'd', 'student', $1, 1)", score
        )
        await pool.execute("INSERT INTO evolution.outcomes VALUES ('globex', 'tsk_1', 'client', 'm', 'd', 'ta', 0, 1)")
    [told] = [one for one in await pair_store.counted(pool, 0, TIE, []) if one.model == "small"]
    return told.wins, told.losses, told.ties


async def test_what_became_of_an_answer_says_who_was_right_after_all(pool: asyncpg.Pool) -> None:
    for kind in ("escalation", "shadow", "audit"):
        assert await heard(pool, kind, True, None) == (0, 0, 1)
        assert await heard(pool, kind, False, None) == (0, 1, 0)
        assert await heard(pool, kind, True, 1.0) == (0, 0, 1)
    # The teacher's answer was settled, and was wrong: nothing tells the two apart. Right: the cheaper one was wrong.
    assert await heard(pool, "escalation", False, 0.0) == (0, 0, 1)
    assert await heard(pool, "escalation", False, 1.0) == (0, 1, 0)
    # The cheaper model's answer was settled, and was right: the teacher that says otherwise is wrong.
    assert await heard(pool, "audit", False, 1.0) == (1, 0, 0)
    assert await heard(pool, "audit", False, 0.0) == (0, 1, 0)


async def test_pairs_before_a_change_count_no_more(pool: asyncpg.Pool) -> None:
    pairs = [
        ComparedPair(f"tsk_{number}", tenant, "d", "small", "large", 1.0, 0.0, "shadow", number)
        for number in range(1, 11)
        for tenant in ("acme", "globex")
    ]
    await pair_store.add(pool, pairs[:1])
    await pair_store.add(pool, pairs)
    for_all = [pair_store.Changed("small", "d", "", 6)]
    found = {(one.model, one.tenant): one.wins for one in await pair_store.counted(pool, 0, TIE, for_all)}
    assert found["small", "acme"] == 4
    assert (found["large", "acme"], len(found)) == (0, 4), "and of the other all of them do"
    for_one = [pair_store.Changed("small", "d", "globex", 6)]
    found = {(one.model, one.tenant): one.wins for one in await pair_store.counted(pool, 0, TIE, for_one)}
    assert (found["small", "acme"], found["small", "globex"]) == (10, 4)
    rows = await pair_store.latest(pool, "small", "d", ["large"], 0, TIE)
    assert [won for _, won in rows] == [1] * 20
    assert await pair_store.erase(pool, "globex") == 10


class Router:
    """Answers for the roster as the router does, and counts what it was asked."""

    def __init__(self, platform: Any, models: list[ModelRecord]) -> None:
        self.models = {model.name: model for model in models}
        self.asked: list[RankSet] = []
        self._bucket = Bucket(platform.connection, s.KV_MODELS)
        self.answering = Answering(platform.connection, {s.SVC_ROUTER_MODEL: self._answer})

    async def publish(self) -> None:
        await self._bucket.put(s.ROSTER_KEY, codec.encode(Roster(version=1, models=list(self.models.values()))))

    async def _answer(self, asked: RankSet, _traceparent: str) -> ModelSetReply:
        self.asked.append(asked)
        model = self.models[asked.model]
        before = model.rank if asked.domain is None else earned(model, asked.tenant, asked.domain)
        if asked.domain is None:
            assert asked.rank is not None
            changed = msgspec.structs.replace(model, rank=asked.rank)
        else:
            ranks = with_earned(model.earned, asked.domain, asked.tenant, asked.rank)
            changed = msgspec.structs.replace(model, earned=ranks)
        self.models[asked.model] = changed
        await self.publish()
        return ModelSetReply(model=asked.model, version=1, is_new=changed != model, before=before)


class Told(list[Any]):
    async def tell(self, message_id: str, kind: str, about: dict[str, Any]) -> None:
        self.append((message_id, kind, about["model"]))


async def test_a_round_promotes_with_its_numbers_once_and_it_can_be_taken_back(
    platforms: Any, pool: asyncpg.Pool, make: Any
) -> None:
    platform = await platforms()
    router = Router(platform, SCHOOL)
    await router.answering.start()
    await router.publish()
    told, audit = Told(), Audit(platform.publisher, "evolution", platform.now_ms)
    changing = Changing(platform, pool, audit, told.tell)
    rounds = RankRounds(platform, pool, Bucket(platform.connection, s.KV_MODELS), changing, Rules)
    store = Store(pool, "scoreboard")
    probes = [compared(make, f"{number}", tenant=f"t{number % 3}") for number in range(450)]
    events = [
        Folding(number, 1_000 + number, (), outcome_of(probe, number), None, probe.task.tenant, None, pairs_of(probe))
        for number, probe in enumerate(probes, 1)
    ]
    for start in range(0, len(events), 100):
        await store.fold(events[start : start + 150])
    lines = await rounds.run("cyc_1")
    assert any("student to ta" in line and "450 as good of 450 pairs by 3 tenants" in line for line in lines), lines
    [change] = [one for one in await change_store.history(pool, "small", None, 10) if not one.tenant]
    assert (change.state, change.before, change.after, change.cycle) == ("applied", None, "ta", "cyc_1")
    assert change.odds >= change.needed
    assert (change.ties, change.tenants) == (450, 3)
    assert applying(router.models["small"], "anybody", "maths") == "ta"
    asked = len(router.asked)
    again = await rounds.run("cyc_1")
    assert [line for line in again if "student to ta" in line] == [line for line in lines if "student to ta" in line]
    assert not [line for line in await rounds.run("cyc_2") if "student to ta" in line]
    assert len(router.asked) == asked, "pairs before the change count no more"
    assert (change.id, "rank.changed", "small") in told
    back = await changing.roll_back(RankRollbackAsk(model="small", domain="maths", by="key1"), "rch_back", make.now_ms)
    assert (back.before, back.after, back.ground) == ("ta", None, "rollback")
    assert applying(router.models["small"], "anybody", "maths") == "student"
    await audit.stop()
    await router.answering.stop()


async def test_what_was_decided_and_not_applied_is_applied_by_the_next_who_starts(
    platforms: Any, pool: asyncpg.Pool, make: Any
) -> None:
    platform = await platforms()
    router = Router(platform, SCHOOL)
    await router.answering.start()
    audit = Audit(platform.publisher, "evolution", platform.now_ms)
    changing = Changing(platform, pool, audit, Told().tell)
    change = RankChangeRow(
        id="rch_1", model="small", before=None, after="ta", ground="better", at_ms=make.now_ms, domain="law",
        state="decided",
    )  # fmt: skip
    await change_store.add(pool, change)
    assert [one.id for one in await changing.resume()] == ["rch_1"]
    assert await changing.resume() == []
    assert earned(router.models["small"], "", "law") == "ta"
    operator = RankChangeAsk(model="large", rank="ta", by="key1", reason="too dear")
    done = await changing.set(operator, "rch_2", make.now_ms)
    assert (done.before, done.after, done.ground, done.domain) == ("teacher", "ta", "operator", None)
    await audit.stop()
    await router.answering.stop()


async def test_what_an_operator_was_refused_is_never_done_later(platforms: Any, pool: asyncpg.Pool, make: Any) -> None:
    platform = await platforms()
    router = Router(platform, SCHOOL)
    await router.answering.start()
    audit = Audit(platform.publisher, "evolution", platform.now_ms)
    changing = Changing(platform, pool, audit, Told().tell)

    def change(name: str, ground: Any, after: Any, domain: str, **fields: Any) -> RankChangeRow:
        return RankChangeRow(
            id=name, model="small", before=None, after=after, ground=ground, at_ms=1, domain=domain, **fields
        )

    failed = change("rch_1", "operator", "teacher", "law", by="key1", state="decided")
    overtaken = change("rch_2", "better", "teacher", "maths", state="decided")
    await change_store.add(pool, failed)
    await change_store.add(pool, overtaken)
    asked = RankChangeAsk(model="small", rank="ta", domain="maths", by="key1", reason="as it is")
    await changing.set(asked, "rch_3", make.now_ms)
    await change_store.add(pool, change("rch_4", "rollback", None, "maths", by="key1", state="decided"))
    # Its reply was lost, but the router had done it.
    small = msgspec.structs.replace(router.models["small"])
    router.models["small"] = msgspec.structs.replace(small, earned=with_earned(small.earned, "sums", "", "ta"))
    await change_store.add(pool, change("rch_5", "operator", "ta", "sums", by="key1", state="decided"))
    assert [one.id for one in await changing.resume(list(router.models.values()))] == ["rch_5"]
    ranks = [earned(router.models["small"], "", domain) for domain in ("law", "maths", "sums")]
    assert ranks == [None, "ta", "ta"]
    states = {one.id: one.state for one in await change_store.history(pool, "small", None, 10)}
    assert states == {
        "rch_1": "refused", "rch_2": "refused", "rch_3": "applied", "rch_4": "refused", "rch_5": "applied",
    }  # fmt: skip
    [standing] = await change_store.standing(pool, "small", "maths", "", 10)
    assert to_undo([standing]) == standing, "what failed takes nothing back"
    await audit.stop()
    await router.answering.stop()


def test_taking_back_twice_takes_two_changes_back() -> None:
    def row(name: str, ground: Any) -> RankChangeRow:
        return RankChangeRow(id=name, model="m", before=None, after="ta", ground=ground, at_ms=1)

    first, second, back = row("1", "better"), row("2", "better"), row("3", "rollback")
    assert to_undo([]) is None
    assert to_undo([second, first]) is second
    assert to_undo([back, second, first]) is first
    assert to_undo([back, back, second, first]) is None


async def test_a_word_on_a_strangers_task_touches_no_pair_of_the_owner(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    pair = pairs_of(compared(make, "1", kind="audit", same=False))
    task = make.task("1", domain="maths", tenant="stranger")
    word = Feedback(id="f", task=task, source="client", score=1.0, at_ms=1, model="small", rank="student")
    await store.fold(
        [
            Folding(1, 1, (), None, None, "acme", None, pair),
            Folding(2, 2, (), outcome_of(word, 2), None, "stranger"),
        ]
    )
    [told] = [one for one in await pair_store.counted(pool, 0, TIE, []) if one.model == "small"]
    assert (told.wins, told.losses, told.tenant) == (0, 1, "acme")
