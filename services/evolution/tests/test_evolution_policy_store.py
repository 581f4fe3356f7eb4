"""Policies on a real database and broker: learned of what was folded, live once, taken back, mended, erased."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import combinations
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.errors import BrokerUnavailableError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import Feedback
from collegium_contracts.policies import routing_key
from collegium_contracts.policy_requests import PoliciesAsk, PolicyRelease, PolicyRollback
from collegium_contracts.routing import Route
from collegium_evolution.policies import decided_store, policy_store, publishing
from collegium_evolution.policies.decided import Decided, decided_in
from collegium_evolution.policies.rounds import PolicyRounds
from collegium_evolution.ranks import pair_store
from collegium_evolution.ranks.pairing import ComparedPair
from collegium_evolution.scoreboards.judging import Outcome, OutcomeKey, outcome_of
from collegium_evolution.scoreboards.scoring import ScoreKey
from collegium_evolution.scoreboards.store import Folding, Store


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


class Feed:
    """Folds answers and words about them, as events bring them."""

    def __init__(self, pool: asyncpg.Pool, make: Any) -> None:
        self.store = Store(pool, "scoreboard")
        self._make = make
        self._sequence = 0

    async def judged(self, count: int, score: float, *, tenant: str = "acme", model: str = "m", **route: Any) -> None:
        events: list[Folding] = []
        for _ in range(count):
            self._sequence += 2
            task = self._make.task(f"{tenant}{self._sequence}", domain="law", tenant=tenant)
            settled = self._make.settled(task, [self._make.call(model=model)])
            settled = msgspec.structs.replace(settled, route=Route(model=model, rank="student", **route))
            word = Feedback(id="f", task=task, source="client", score=score, at_ms=1, model=model, rank="student")
            for place, message in enumerate((settled, word)):
                stored_ns = 1_000 + self._sequence + place
                outcome = outcome_of(message, stored_ns)
                events.append(
                    Folding(self._sequence + place, stored_ns, [], outcome, tenant=tenant, decided=decided_in(message))
                )
        for _ in range(2):
            await self.store.fold(events)


async def test_a_tenants_words_make_its_policy_and_nobody_elses(pool: asyncpg.Pool, make: Any, platforms: Any) -> None:
    platform = await platforms()
    feed, rounds = Feed(pool, make), PolicyRounds(platform, pool)
    bucket = Bucket(platform.connection, s.KV_POLICY)
    await feed.judged(25, 1.0, policy_version=1, propensity=0.5, candidates=["m", "n"])
    await feed.judged(10, 0.0, tenant="other")
    (line,) = await rounds.run("cyc_1")
    assert line.startswith("acme: version 1 of 25 outcomes is live")
    entry = await bucket.get(routing_key("acme"))
    assert entry is not None
    policy = codec.state.decode(entry.value)
    assert (policy.tenant, policy.version, policy.rows, policy.models) == ("acme", 1, 25, ["m"])
    assert policy.domains["law"][0].mean > 0.9
    assert await bucket.get(routing_key("other")) is None
    # Nothing new was heard: nothing is made anew.
    assert await rounds.run("cyc_1") == [line], "begun again after a kill it tells the same, and makes nothing"
    assert await rounds.run("cyc_2") == []

    await feed.judged(30, 0.0)
    await rounds.run("cyc_3")
    reply: Any = await rounds.answer(PoliciesAsk(tenant="acme", history=True), "")
    assert [(row.version, row.state) for row in reply.rows] == [(2, "live"), (1, "superseded")]

    back: Any = await rounds.answer(PolicyRollback(tenant="acme", by="key"), "")
    assert (back.rows[0].version, back.rows[0].pinned, back.rows[0].rolled_back_from) == (3, True, 2)
    entry = await bucket.get(routing_key("acme"))
    assert codec.state.decode(entry.value).rows == 25
    await feed.judged(5, 1.0)
    assert await rounds.run("cyc_4") == ["acme: version 3 was chosen by an operator and stays"]
    await rounds.answer(PolicyRelease(tenant="acme", by="key"), "")
    assert "version 4" in (await rounds.run("cyc_5"))[0]

    # What the bucket lost, or holds otherwise, is written again.
    for garbage in (b"\xff", None):
        if garbage is None:
            await bucket.delete(routing_key("acme"), expected_revision=(await bucket.get(routing_key("acme"))).revision)
        else:
            await bucket.put(routing_key("acme"), garbage)
        await rounds.run("cyc_6")
        assert codec.state.decode((await bucket.get(routing_key("acme"))).value).version == 4

    for asked in (PolicyRollback(tenant="acme", by="k", version=99), PolicyRollback(tenant="nobody", by="k")):
        with pytest.raises(RequestRefusedError) as refused:
            await rounds.answer(asked, "")
        assert refused.value.code == "not_found"

    assert await rounds.erase("acme") == 60 + 4 + 1
    assert await bucket.get(routing_key("acme")) is None
    assert await decided_store.judged(pool, "acme") == []
    assert len(await decided_store.judged(pool, "other")) == 10


async def test_going_back_again_goes_further_back(pool: asyncpg.Pool, make: Any, platforms: Any) -> None:
    platform = await platforms()
    feed, rounds = Feed(pool, make), PolicyRounds(platform, pool)
    for count in (25, 5, 5):
        await feed.judged(count, 1.0)
        await rounds.run()
    back: Any = [(await rounds.answer(PolicyRollback(tenant="acme", by="key"), "")).rows[0] for _ in range(2)]
    assert [(row.version, row.rolled_back_from, row.rolled_back_to, row.rows) for row in back] == [
        (4, 3, 2, 30), (5, 4, 1, 25),
    ]  # fmt: skip
    with pytest.raises(RequestRefusedError) as refused:
        await rounds.answer(PolicyRollback(tenant="acme", by="key"), "")
    assert refused.value.code == "not_found"


async def test_what_an_operator_chose_during_a_round_stays(
    pool: asyncpg.Pool, make: Any, platforms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = await platforms()
    feed, rounds = Feed(pool, make), PolicyRounds(platform, pool)
    for count in (25, 5):
        await feed.judged(count, 1.0)
        await rounds.run()
    heard = policy_store.heard

    async def meanwhile(of: Any) -> Any:
        # The round has read who is live by now.
        found = await heard(of)
        await rounds.answer(PolicyRollback(tenant="acme", by="key"), "")
        return found

    await feed.judged(5, 1.0)
    monkeypatch.setattr(policy_store, "heard", meanwhile)
    assert await rounds.run() == []
    (live,) = await policy_store.live(pool, "acme")
    assert (live.row.version, live.row.pinned, live.row.rows) == (3, True, 25)
    entry = await Bucket(platform.connection, s.KV_POLICY).get(routing_key("acme"))
    assert entry is not None
    assert entry.value == live.value


async def test_what_fails_for_one_tenant_stops_nobody_else(
    pool: asyncpg.Pool, make: Any, platforms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, rounds = Feed(pool, make), PolicyRounds(await platforms(), pool)
    for tenant in ("one", "two", "three"):
        await feed.judged(25, 1.0, tenant=tenant)
    judged, failures = decided_store.judged, {
        "one": BrokerUnavailableError("away"), "three": asyncpg.InterfaceError("closed"),
    }  # fmt: skip

    async def failing(of: Any, tenant: str) -> Any:
        if tenant in failures:
            raise failures[tenant]
        return await judged(of, tenant)

    monkeypatch.setattr(decided_store, "judged", failing)
    lines = await rounds.run()
    assert {line.partition(":")[0] for line in lines if "not made" in line} == {"one", "three"}
    assert [live.row.tenant for live in await policy_store.live(pool)] == ["_operator", "two"]

    monkeypatch.setattr(publishing, "VALUE_BYTES_MAX", 100)
    failures.clear()
    assert "one: not made, TooLargeError" in await rounds.run()
    assert await policy_store.live(pool, "one") == []


async def test_what_tenants_share_is_made_of_three_of_them_at_least(
    pool: asyncpg.Pool, make: Any, platforms: Any
) -> None:
    platform = await platforms()
    feed, rounds = Feed(pool, make), PolicyRounds(platform, pool)
    for tenant in ("one", "two"):
        await feed.judged(20, 1.0, tenant=tenant)
    assert not any("everybody" in line for line in await rounds.run())
    await feed.judged(20, 0.0, tenant="three")
    assert any("everybody else: version 1" in line for line in await rounds.run())
    reply: Any = await rounds.answer(PoliciesAsk(tenant="_operator"), "")
    assert (reply.rows[0].everywhere[0].quality, reply.rows[0].domains) == (1.0, {})


async def test_what_was_asked_again_is_known_though_nobody_judged_it(pool: asyncpg.Pool, make: Any) -> None:
    feed = Feed(pool, make)
    await feed.judged(1, 1.0, tenant="again")
    (first,) = await decided_store.judged(pool, "again")
    unjudged = make.task("again-unjudged", domain="law", tenant="again")
    settled = make.settled(unjudged, [make.call(model="m")])
    audit = make.task("again-audit", domain="law", tenant="again")
    audited = make.settled(audit, [make.call(model="m")])
    word = OutcomeKey("again", audit.id, "audit"), Outcome(ScoreKey("m", "law", "student"), 0.0, 9_000_002)
    await feed.store.fold(
        [
            Folding(9_000_000, 9_000_000, [], None, tenant="again", decided=decided_in(settled)),
            Folding(9_000_001, 9_000_001, [], None, tenant="again", decided=decided_in(audited)),
            Folding(9_000_002, 9_000_002, [], word, tenant="again"),
        ]
    )
    async with pool.acquire() as connection:
        await pair_store.add(
            connection,
            [
                ComparedPair(first.of.task_id, "again", "law", "small", "m", 1.0, 1.0, "shadow", 1),
                ComparedPair(unjudged.id, "again", "law", "small", "m", 0.0, 1.0, "shadow", 2),
                ComparedPair(audit.id, "again", "law", "m", "large", 0.0, 1.0, "audit", 3),
                ComparedPair(unjudged.id, "other-tenant", "law", "big", "m", 0.0, 1.0, "shadow", 2),
            ],
        )
    known = {one.of.task_id: (one.score, one.again) for one in await decided_store.judged(pool, "again")}
    assert known == {
        first.of.task_id: (1.0, (("small", True),)),
        unjudged.id: (None, (("small", False),)),
        # What a teacher said is one answer beside another, no word about it.
        audit.id: (None, (("large", False),)),
    }
    assert (await decided_store.heard(pool))["again"] >= 3_000_000


async def test_members_of_a_panel_stand_beside_its_first_one(pool: asyncpg.Pool, make: Any) -> None:
    feed = Feed(pool, make)
    await feed.judged(1, 1.0, tenant="panel")
    task = make.task("panel-task", domain="law", tenant="panel")
    told = [Decided("panel", task.id, number, name, "student", "law", 5, 1, 1) for number, name in enumerate("bacd", 1)]
    await feed.store.fold(
        [
            Folding(9_500_000 + place, 9_500_000 + place, [], None, tenant="panel", decided=one)
            for place, one in enumerate(told)
        ]
    )
    async with pool.acquire() as connection:
        # The first, b, said what was settled, and so did c; a and d did not, and may have said the same or not.
        score = {"a": 0.0, "b": 1.0, "c": 1.0, "d": 0.0}
        members = [
            ComparedPair(task.id, "panel", "law", one, other, score[one], score[other], "panel", 7)
            for one, other in combinations(sorted(score), 2)
        ]
        await pair_store.add(connection, members)
    known = {(one.of.task_id, one.of.number): one.again for one in await decided_store.judged(pool, "panel")}
    assert {key: again for key, again in known.items() if key[0] == task.id} == {
        (task.id, 1): (("a", False), ("c", True), ("d", False)),
    }
    assert (await decided_store.heard(pool))["panel"] >= 7_000_000
