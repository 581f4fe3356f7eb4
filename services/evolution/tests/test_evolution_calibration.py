"""What confidence is learned from: each weighed answer once, beside the last word about it; erased with its tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.feedback import Feedback
from collegium_contracts.messages import TaskCompleted
from collegium_contracts.parts import Evidence, Probe, Said
from collegium_contracts.probes import ProbeCompared
from collegium_contracts.state import ConfidenceRecord
from collegium_evolution.calibration.cases import kept_of
from collegium_evolution.calibration.rounds import MORE_MIN, Calibration, is_due
from collegium_evolution.calibration.store import CalibrationStore, Labels, shared
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_learning.confidence.fitting import LABELS_MIN
from collegium_learning.confidence.policy import decode_policy
from hypothesis import given
from hypothesis import strategies as st

SAID = [Said(model="m1", rank="student", camp=1), Said(model="m2", rank="student", camp=1)]
EVIDENCE = Evidence(answer_type="number", camp=1, said=SAID, probability=0.8)

DAY_MS = 86_400_000
STORED_NS = 1_767_225_600_000 * 1_000_000


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def verdict(make: Any, name: str, *, evidence: Evidence | None = EVIDENCE, **task: Any) -> TaskCompleted:
    return TaskCompleted(
        task=make.task(name, **task), plan="panel", stop_reason="completed", usage=make.call().usage, attempts=[],
        settled_at_ms=make.now_ms, model="m1", rank="student", confidence=0.8, evidence=evidence,
        output=make.settled(make.task(name), [make.call()]).output,
    )  # fmt: skip


def word(make: Any, name: str, score: float, **task: Any) -> Feedback:
    return Feedback(
        id="f", task=make.task(name, **task), source="client", score=score, at_ms=1, model="m1", rank="student"
    )


def audit(make: Any, name: str, same: bool | None) -> ProbeCompared:
    return ProbeCompared(
        task=make.task(name), kind="audit", probe="p", at_ms=1, model="m1", rank="student", probe_model="t",
        probe_rank="teacher", probe_usage=make.call(), same=same,
    )  # fmt: skip


def folding(sequence: int, message: Any) -> Folding:
    stored_ns = STORED_NS + sequence
    return Folding(sequence, stored_ns, [], outcome_of(message, stored_ns), kept_of(message), message.task.tenant)


def test_only_weighed_answers_that_somebody_asked_for_are_kept(make: Any):
    assert kept_of(verdict(make, "1")) is not None
    assert kept_of(verdict(make, "1", evidence=None)) is None
    assert kept_of(verdict(make, "1", probe=Probe(of="x"))) is None
    assert kept_of(verdict(make, "1", evidence=msgspec.structs.replace(EVIDENCE, tests=3))) is None
    assert kept_of(word(make, "1", 1.0)) is None


async def test_answers_and_words_join_once_however_often_and_in_whatever_order_they_come(pool: asyncpg.Pool, make: Any):
    store, cases = Store(pool, "scoreboard"), CalibrationStore(pool)
    events = [
        folding(1, word(make, "1", 0.0)),
        folding(2, verdict(make, "1", domain="sums")),
        folding(3, verdict(make, "2")),
        folding(4, audit(make, "1", same=True)),
        folding(5, audit(make, "2", same=None)),
        folding(6, word(make, "3", 1.0, domain="law")),
    ]
    for some in (events, events[::-1], events[:2]):
        await store.fold(some)
    # The teacher is believed over the client; silence judges nothing; a word about a plan of one counts for its model.
    found = [(one.domain, one.plan, one.right) for one in await cases.cases("acme")]
    assert found == [("law", "single", True), ("sums", "panel", True), ("", "panel", None)]
    assert (await cases.cases("acme"))[1].evidence == EVIDENCE
    assert await cases.cases() == [], "what one tenant says is not for all"
    assert await cases.labels() == {"acme": Labels(1, STORED_NS + 4)}
    assert await cases.cases("globex") == []
    assert await cases.erase("acme") == 2
    assert await cases.labels() == {}


async def test_none_of_the_tenants_is_more_than_a_third_of_what_all_share(pool: asyncpg.Pool, make: Any):
    store, cases = Store(pool, "scoreboard"), CalibrationStore(pool)
    # Loud says most, and last; quiet has one word, and silent none.
    tenants = [*["one"] * 3, *["two"] * 3, "quiet", *["silent"] * 2, *["loud"] * 30]
    events: list[Folding] = []
    for number, tenant in enumerate(tenants):
        told = verdict(make, str(number), tenant=tenant, domain=tenant)
        events.append(folding(4 * number + 1, told))
        if tenant != "silent":
            events.append(folding(4 * number + 2, word(make, str(number), 0.0, tenant=tenant)))
        events.append(folding(4 * number + 3, word(make, f"{number}s", 0.0, tenant=tenant, domain=tenant)))
    await store.fold(events)
    for plan in ("panel", "single"):
        judged = [one.domain for one in await cases.cases() if one.plan == plan and one.right is not None]
        assert judged.count("loud") == judged.count("one") == judged.count("two") == 3
        assert judged.count("quiet") == 1
    assert all(one.right is not None for one in await cases.cases()), "two more tenants would have to be silent"
    assert shared(await cases.labels()).judged == 10


async def test_words_are_forgotten_after_half_a_year_batch_by_batch(
    pool: asyncpg.Pool, make: Any, platforms: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("collegium_evolution.calibration.store.WORDS_AT_ONCE", 3)
    store = Store(pool, "scoreboard")
    await store.fold([folding(number, word(make, str(number), 1.0)) for number in range(1, 9)])
    platform = await platforms(now_ms=lambda: make.now_ms + 180 * DAY_MS)
    await Calibration(platform, pool).round()
    assert await pool.fetchval("SELECT count(*) FROM evolution.outcomes") == 8
    platform = await platforms(now_ms=lambda: make.now_ms + 180 * DAY_MS + 1)
    await Calibration(platform, pool).round()
    assert await pool.fetchval("SELECT count(*) FROM evolution.outcomes") == 0
    [score] = (await store.board()).scores
    assert score.judged == 8, "sums stay"


def test_fewer_than_three_tenants_teach_nothing_for_all():
    assert shared({"a": Labels(900), "b": Labels(900)}).judged == 0
    assert shared({"a": Labels(900), "b": Labels(900), "c": Labels(7)}).judged == 21


async def test_a_version_is_published_when_enough_more_was_judged(pool: asyncpg.Pool, make: Any, platforms: Any):
    platform = await platforms()
    store, calibration = Store(pool, "scoreboard"), Calibration(platform, pool)
    bucket = Bucket(platform.connection, s.KV_POLICY)
    judged = 0
    tenants = ["acme"]

    async def judge(count: int) -> None:
        nonlocal judged
        events: list[Folding] = []
        for number in range(judged + 1, judged + count + 1):
            tenant = tenants[number % len(tenants)]
            events += [
                folding(2 * number, verdict(make, str(number), tenant=tenant)),
                folding(2 * number + 1, word(make, str(number), 1.0, tenant=tenant)),
            ]
        judged += count
        await store.fold(events)
        await calibration.round()

    async def version() -> int:
        entry = await bucket.get(s.CONFIDENCE_KEY)
        record = codec.state.decode(entry.value) if entry is not None else None
        return record.version if isinstance(record, ConfidenceRecord) else 0

    await judge(LABELS_MIN)
    assert await version() == 0, "of one tenant alone nothing is made for all"
    await pool.execute("TRUNCATE evolution.verdicts, evolution.outcomes")
    tenants = ["acme", "globex", "initech"]
    await judge(LABELS_MIN - 3)
    assert await version() == 0
    await judge(3)
    assert await version() == 1
    await judge(MORE_MIN - 1)
    assert await version() == 1
    await judge(3)
    assert await version() == 2
    entry = await bucket.get(s.CONFIDENCE_KEY)
    assert entry is not None
    record = codec.state.decode(entry.value)
    assert isinstance(record, ConfidenceRecord)
    assert (record.version, record.labels) == (2, LABELS_MIN + MORE_MIN + 2)
    assert decode_policy(record.policy).right[""]["m1"] > 0.9
    # A tenant with few answers has none of its own.
    assert await bucket.get(s.confidence_key("acme")) is None


def standing(labels: int) -> ConfidenceRecord:
    return ConfidenceRecord(version=1, made_at_ms=DAY_MS, labels=labels, policy=b"")


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_fit_is_due_only_for_more_than_stands(labels: int, fitted: int):
    if is_due(Labels(labels), standing(fitted), LABELS_MIN, 9 * DAY_MS):
        assert labels >= LABELS_MIN
        assert labels > fitted


def test_where_as_many_age_out_as_come_in_it_is_fitted_anew_after_a_day():
    before, after = Labels(400, DAY_MS * 1_000_000), Labels(400, DAY_MS * 1_000_000 + 1)
    assert not is_due(after, standing(400), LABELS_MIN, 2 * DAY_MS - 1)
    assert is_due(after, standing(400), LABELS_MIN, 2 * DAY_MS)
    assert not is_due(before, standing(400), LABELS_MIN, 9 * DAY_MS), "nothing was said since"
    assert is_due(Labels(LABELS_MIN), None, LABELS_MIN, 0)
