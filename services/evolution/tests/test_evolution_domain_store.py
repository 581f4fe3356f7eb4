"""Domains on a real database and broker: found once enough was asked, named, merged, published, mended and erased."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import numpy as np
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, ChatMessage, Choice, encode_content
from collegium_contracts.domain_requests import DomainMerge, DomainRename, DomainRow, DomainsAsk, DomainsReply
from collegium_contracts.domains import map_key
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.messages import Message
from collegium_contracts.routing import FEATURES_PURPOSE
from collegium_evolution.domains import domain_store
from collegium_evolution.domains import rounds as rounding
from collegium_evolution.domains.answers import DomainAnswers
from collegium_evolution.domains.rounds import DomainRounds
from collegium_evolution.policies import decided_store
from collegium_evolution.policies.decided import Decided
from collegium_evolution.students import sample_store
from collegium_evolution.students.samples import Sample
from collegium_learning.domains.fitting import Found, find
from collegium_learning.domains.mapping import Mapper, unit
from collegium_learning.routing.features import TRAITS, pack, row_of

WIDE = 24
CENTRES = unit(np.random.default_rng(3).normal(size=(3, WIDE)).astype(np.float32))
WORDS = ("where is my card", "what does a loan cost", "who takes my complaint")
KEYRING = IdentityKeyring()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
def here(monkeypatch: Any) -> None:
    async def found(directions: np.ndarray) -> Found | None:
        return find(directions)

    monkeypatch.setattr(rounding, "found", found)


async def asked(
    pool: asyncpg.Pool, tenant: str, rows: int, *, begin: int = 0, collects: bool = True, at_ms: int = 0
) -> None:
    draw = np.random.default_rng(7 + begin)
    traits = np.zeros(len(TRAITS), np.float32)
    told: list[Decided] = []
    samples: list[Sample] = []
    for place in range(begin, begin + rows):
        noise = unit(draw.normal(size=WIDE).astype(np.float32))
        row = row_of(CENTRES[place % 3] + 0.4 * noise, traits)
        features = KEYRING.seal(tenant, pack(row), FEATURES_PURPOSE)
        at = at_ms + place
        told.append(Decided(tenant, f"t{place}", 1, "m", "ta", "", at, 5, 100, embedder="mini", features=features))
        prompt = KEYRING.seal(tenant, encode_content([ChatMessage(role="user", content=WORDS[place % 3])]))
        answer = KEYRING.seal(tenant, encode_content(Answer([Choice("yes")])))
        samples.append(Sample(tenant, f"t{place}", "", "m", "ta", "pro", None, 1, place, prompt, answer))
    async with pool.acquire() as connection:
        await decided_store.add(connection, told)
        if collects:
            await sample_store.add(connection, samples)


async def rows_of(answers: DomainAnswers, question: Message) -> list[DomainRow]:
    reply = await answers.answer(question, "")
    assert isinstance(reply, DomainsReply)
    return reply.rows


async def test_domains_are_found_named_kept_merged_and_erased(pool: asyncpg.Pool, platforms: Any, here: None) -> None:
    platform = await platforms()
    rounds = DomainRounds(platform, pool)
    answers = DomainAnswers(rounds)
    bucket = Bucket(platform.connection, s.KV_POLICY)
    await asked(pool, "acme", 210)
    await asked(pool, "silent", 210, collects=False)
    await asked(pool, "few", 20)
    lines = await rounds.run()
    assert [line.split(":")[0] for line in sorted(lines)] == ["acme", "silent"]
    assert await rounds.run() == [], "nothing new was asked"

    rows = await rows_of(answers, DomainsAsk(tenant="acme", with_terms=True))
    assert sorted(row.terms[0] for row in rows) == ["card", "complaint", "cost"]
    assert all(row.terms == [] for row in await rows_of(answers, DomainsAsk(tenant="acme")))
    silent = await rows_of(answers, DomainsAsk(tenant="silent", with_terms=True))
    assert [row.terms for row in silent] == [[], [], []]
    assert not {row.id for row in silent} & {row.id for row in rows}

    first, second, _ = (row.id for row in rows)
    (renamed,) = await rows_of(answers, DomainRename(id=first, name="cards", by="k", tenant="acme"))
    assert renamed.named == "cards"
    (merged,) = await rows_of(answers, DomainMerge(id=first, into=second, by="k"))
    assert (merged.state, merged.into) == ("merged", second)
    with pytest.raises(RequestRefusedError, match="merged into"):
        await answers.answer(DomainMerge(id=second, into=first, by="k"), "")
    with pytest.raises(RequestRefusedError, match="no discovered domain"):
        await answers.answer(DomainRename(id=first, name="mine", by="k", tenant="silent"), "")
    with pytest.raises(RequestRefusedError, match="no domain"):
        await answers.answer(DomainMerge(id=second, into=silent[0].id, by="k"), "")

    entry = await bucket.get(map_key("acme"))
    assert entry is not None
    published = codec.state.decode(entry.value)
    assert published.domains[published.clusters.index(first)] == second
    mapper = await rounds.mapper("acme")
    assert mapper is not None
    assert mapper.map == published


async def test_domains_are_kept_when_more_is_asked_mended_and_erased(
    pool: asyncpg.Pool, platforms: Any, here: None
) -> None:
    clock = [1_000]
    platform = await platforms(now_ms=lambda: clock[0])
    rounds = DomainRounds(platform, pool)
    answers = DomainAnswers(rounds)
    bucket = Bucket(platform.connection, s.KV_POLICY)
    await asked(pool, "acme", 210)
    await asked(pool, "silent", 210, collects=False)
    await rounds.run()
    first, second, _ = (row.id for row in await rows_of(answers, DomainsAsk(tenant="acme")))
    await answers.answer(DomainRename(id=first, name="cards", by="k"), "")
    await answers.answer(DomainMerge(id=first, into=second, by="k"), "")
    # What is old is pruned meanwhile: there are no more questions than before, and still enough new ones.
    await pool.execute("DELETE FROM evolution.decided WHERE tenant = 'acme' AND at_ms < 60")
    await asked(pool, "acme", 40, begin=210, at_ms=clock[0])
    assert await rounds.run() == []
    await asked(pool, "acme", 20, begin=250, at_ms=clock[0])
    clock[0] = 2_000
    assert len(await rounds.run()) == 1
    again = await rows_of(answers, DomainsAsk(tenant="acme"))
    assert {row.id: (row.named, row.state) for row in again}[first] == ("cards", "merged")
    assert len(again) == 3

    known = await rounds.clusters_since(0)
    assert sorted(known) == ["acme", "silent"]
    assert sum(one.settled for one in known["acme"]) > 190
    assert {one.domain for one in known["acme"]} == {row.id for row in again if row.state == "live"}

    await bucket.put(map_key("acme"), b"garbage")
    await rounds.run()
    mended = await bucket.get(map_key("acme"))
    assert mended is not None
    assert Mapper(codec.state.decode(mended.value)).map.version == 4

    assert await rounds.erase("acme") == 5
    assert await bucket.get(map_key("acme")) is None
    assert await rows_of(answers, DomainsAsk(tenant="acme")) == []
    assert len(await rows_of(answers, DomainsAsk())) == 3


async def test_two_that_change_the_same_map_do_not_both(pool: asyncpg.Pool, platforms: Any, here: None) -> None:
    rounds = DomainRounds(await platforms(), pool)
    await asked(pool, "acme", 210)
    await rounds.run()
    (standing,) = await domain_store.maps(pool, "acme")
    later = standing._replace(version=standing.version + 1)
    assert await domain_store.put(pool, later, [])
    assert not await domain_store.put(pool, later, [])


@pytest.mark.parametrize("name", ["x" * 65, "two\nlines"])
async def test_names_are_bounded(name: str) -> None:
    nobody: Any = type("Rounds", (), {"pool": None})()
    with pytest.raises(RequestRefusedError) as refused:
        await DomainAnswers(nobody).answer(DomainRename(id="topic-1", name=name, by="k"), "")
    assert refused.value.param == "name"
