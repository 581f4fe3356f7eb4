"""What other models said beside samples: kept with them, and gone with them and with their tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.experiments import Trial
from collegium_contracts.messages import AttemptAnswered, Feedback, ProbeCompared
from collegium_contracts.routing import Route
from collegium_evolution.cycles.planning import names
from collegium_evolution.ranks.rounds import _whose
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_evolution.students import sample_store
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.opened import opened_tries
from collegium_evolution.students.sample_store import KEPT_MS, LONE_MS, SampleStore
from collegium_evolution.students.samples import sample_of
from collegium_evolution.students.student_store import StudentStore
from collegium_evolution.students.tries import try_of

SAID = Envelope("identity", b"", encode_content(Answer([Choice("five")])))
PROMPT = Envelope("identity", b"", b'[{"role":"user","content":"2+2"}]')


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def answered(make: Any, name: str = "1", plan: Any = "cascade", **task: Any) -> AttemptAnswered:
    ended = make.ended(make.task(name, **({"collects_since_ms": 1} | task)), make.call(model="small"))
    attempt = msgspec.structs.replace(ended.attempt, plan=plan)
    return msgspec.structs.replace(ended, attempt=attempt, answer=SAID)


def sampled(make: Any, name: str, **said: Any) -> Any:
    settled = make.settled(make.task(name, collects_since_ms=1, domain="desk"), [make.call(model="big")])
    about = {"turn": PROMPT, "output": SAID, "model": "big", "rank": "teacher", "confidence": 0.9}
    return msgspec.structs.replace(settled, **(about | said))


def test_a_members_answer_is_a_try_and_an_escalated_one_says_so(make: Any):
    found = try_of(answered(make))
    assert found is not None
    assert (found.model, found.rank, found.escalated) == ("small", "student", True)
    assert (found.same, found.answer) == (None, SAID)
    panel = try_of(answered(make, plan="panel"))
    assert panel is not None
    assert not panel.escalated


@pytest.mark.parametrize("change", [{"collects_since_ms": 0}, {"conversation": "talk"}, {"memory": "web"}], ids=repr)
def test_what_may_not_be_learned_has_no_tries(make: Any, change: dict[str, Any]):
    assert try_of(answered(make, **change)) is None


def test_what_was_told_an_instruction_is_no_try(make: Any):
    trial = Trial(id="x", arm="candidate", instructed=True)
    route = Route(model="small", rank="student", trial=trial)
    assert try_of(msgspec.structs.replace(answered(make), route=route)) is None


def test_a_judges_word_is_no_try(make: Any):
    message = answered(make)
    judge = msgspec.structs.replace(message.attempt, judges=True)
    assert try_of(msgspec.structs.replace(message, attempt=judge)) is None


async def test_tries_are_kept_with_their_sample_and_go_with_it(pool: asyncpg.Pool, make: Any):
    store, samples = Store(pool, "scoreboard"), SampleStore(pool, 0.85)
    settled = sampled(make, "1")
    probe = ProbeCompared(
        task=settled.task, kind="shadow", probe="tsk_" + "9" * 26, at_ms=make.now_ms, model="big", rank="teacher",
        probe_model="mid", probe_rank="ta", probe_usage=settled.attempts[0], same=True,
    )  # fmt: skip
    messages = [answered(make, "1"), settled, probe, answered(make, "2")]
    events = [
        Folding(number, number, [], sample=sample_of(message), tried=try_of(message))
        for number, message in enumerate(messages, 1)
    ]
    for _ in range(2):
        await store.fold(events)
    task_id = settled.task.id
    tries = await samples.tries("acme", [task_id])
    assert [(one.model, one.same, one.escalated) for one in tries] == [("mid", True, False), ("small", None, True)]
    assert await samples.tries("globex", [task_id]) == []
    read = await opened_tries(IdentityKeyring(), "acme", tries)
    assert [one.answer for one in read[task_id]] == [None, "five"]
    assert await samples.forget_old(make.now_ms + LONE_MS + 1) == 1, "the try without a sample"
    assert await samples.forget_old(make.now_ms + KEPT_MS + 10**9) == 3, "the sample, then its tries"


async def test_tries_end_at_so_many_bytes_and_those_of_the_first_samples_stay(
    pool: asyncpg.Pool, make: Any, monkeypatch: pytest.MonkeyPatch
):
    store, samples = Store(pool, "scoreboard"), SampleStore(pool, 0.85)
    messages = [answered(make, str(number)) for number in range(6)]
    await store.fold([Folding(number, number, [], tried=try_of(one)) for number, one in enumerate(messages, 1)])
    size = await pool.fetchval("SELECT max(octet_length(answer)) FROM evolution.tried")
    monkeypatch.setattr(sample_store, "ROWS_BYTES_MAX", 2 * size + 1)
    tasks = [one.task.id for one in reversed(messages)]
    assert [one.task_id for one in await samples.tries("acme", tasks)] == tasks[:2]


async def test_a_no_to_a_model_is_none_to_the_person_who_answered_instead(pool: asyncpg.Pool, make: Any):
    store, samples = Store(pool, "scoreboard"), SampleStore(pool, 0.85)
    settled = sampled(make, "1", model="person:experts", rank="person", confidence=None)
    words = [
        Feedback(id="1", task=settled.task, source="person", score=0.0, model="big", rank="teacher", at_ms=1),
        Feedback(id="2", task=settled.task, source="client", score=0.1, model="person:experts", rank="person", at_ms=1),
    ]
    for number, left in ((1, 1), (2, 0)):
        word = words[number - 1]
        await store.fold([Folding(number, number, [], outcome_of(word, number), sample=sample_of(settled))])
        assert len(await samples.rows("acme", "desk")) == left
        assert len(await samples.many(1)) == left


async def test_a_persons_answer_is_verified(pool: asyncpg.Pool, make: Any):
    store, samples = Store(pool, "scoreboard"), SampleStore(pool, 0.85)
    settled = sampled(
        make, "1", model="person:experts", rank="person", confidence=None, stop_reason="answered_by_person"
    )
    await store.fold([Folding(1, 1, [], sample=sample_of(settled))])
    assert [one.model for one in await samples.rows("acme", "desk")] == ["person:experts"]
    assert [(row.domain, row.verified) for row in await samples.counts("acme", bool)] == [("desk", 1)]
    assert [one.verified for one in await samples.many(1)] == [1]


async def test_a_manifest_is_its_tenants_and_goes_with_it(pool: asyncpg.Pool):
    exports = ExportStore(pool)
    manifest = {"id": "exp_1", "tenant": "acme", "domain": "desk", "made_ms": 5, "rows": 3}
    await exports.put(manifest, "claim")
    assert await exports.manifest("exp_1", "acme") == manifest
    assert await exports.manifest("exp_1", "globex") is None
    await StudentStore(pool).erase("acme")
    assert await exports.manifest("exp_1", "acme") is None


def test_a_line_about_a_tenants_rank_names_the_tenant():
    class One:
        model, tenant = "small", "acme"

    one: Any = One()
    assert names(f"{_whose(one)}: stays student in domain 'law': too few pairs", "acme")


async def test_words_of_an_age_are_found_by_an_index(pool: asyncpg.Pool):
    assert await pool.fetchval("SELECT to_regclass('evolution.outcomes_age') IS NOT NULL")
