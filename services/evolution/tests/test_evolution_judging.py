"""Feedback in the scores of models: of one source the last word about a task counts, in whatever order words come."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from collegium_contracts.feedback import Feedback, FeedbackSource
from collegium_evolution.scoreboards.judging import OutcomeKey, changes, last_words, outcome_of
from collegium_evolution.scoreboards.store import DOMAINS_MAX, OTHER_DOMAINS, Folding, Store
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


def word(
    make: Any, task: int, score: float, *, model: str = "m", source: FeedbackSource = "client", **about: Any
) -> Feedback:
    ref = make.task(str(task), **about)
    return Feedback(id="fbk", task=ref, source=source, score=score, at_ms=1, model=model, rank="student")


def folding(sequence: int, message: Feedback) -> Folding:
    stored_ns = 1_000 + sequence
    return Folding(sequence, stored_ns, [], outcome_of(message, stored_ns), tenant=message.task.tenant)


async def judged(store: Store) -> dict[tuple[str, str], tuple[int, float]]:
    board = await store.board()
    return {(one.model, one.domain): (one.judged, one.score_sum) for one in board.scores if one.judged}


WORDS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["client", "outcome"]), st.integers(0, 4)), max_size=12)


@given(told=WORDS, data=st.data())
def test_any_order_and_any_cut_give_the_sums_of_the_last_words(make: Any, told: Any, data: Any):
    words = [
        outcome_of(word(make, task, score / 4, source=source, model=f"m{score % 2}"), number)
        for number, (task, source, score) in enumerate(told)
    ]
    wanted: dict[str, list[float]] = {}
    for _, outcome in last_words(words).items():
        wanted.setdefault(outcome.key.model, []).append(outcome.score)
    shuffled = data.draw(st.permutations([*words, *words]))
    standing: dict[Any, Any] = {}
    sums: dict[str, tuple[int, float]] = {}
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        newer, changed = changes(standing, last_words(shuffled[:size]))
        shuffled = shuffled[size:]
        standing.update(newer)
        for key, change in changed.items():
            words_now, total = sums.get(key.model, (0, 0.0))
            sums[key.model] = (words_now + change.words, total + change.score_sum)
    assert {model: found for model, found in sums.items() if found[0]} == {
        model: (len(scores), sum(scores)) for model, scores in wanted.items()
    }


def test_what_no_model_answered_scores_nobody(make: Any):
    assert outcome_of(word(make, 1, 0.5, model=""), 1) is None
    assert outcome_of(make.settled(make.task("1"), [make.call()]), 1) is None


async def test_a_later_word_replaces_and_another_source_stands_beside(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    first, outcome, second = word(make, 1, 0.25), word(make, 1, 1.0, source="outcome"), word(make, 1, 0.75)
    assert await store.fold([folding(1, first), folding(2, outcome)]) == 2
    assert await judged(store) == {("m", ""): (2, 1.25)}
    assert await store.fold([folding(3, second), folding(1, first)]) == 1
    assert await judged(store) == {("m", ""): (2, 1.75)}
    # Of another tenant, a task of the same id is another task.
    assert await store.fold([folding(4, word(make, 1, 0.0, tenant="globex"))]) == 1
    assert await judged(store) == {("m", ""): (3, 1.75)}


async def test_a_word_that_comes_late_changes_nothing(pool: asyncpg.Pool, make: Any) -> None:
    store = Store(pool, "scoreboard")
    await store.fold([folding(7, word(make, 1, 0.75, model="b"))])
    await store.fold([folding(3, word(make, 1, 0.25, model="a"))])
    assert await judged(store) == {("b", ""): (1, 0.75)}


async def test_words_and_calls_stand_in_one_row_and_an_erased_tenant_leaves_sums_alone(
    pool: asyncpg.Pool, make: Any
) -> None:
    store = Store(pool, "scoreboard")
    call = make.settled(make.task("1", domain="law"), [make.call()])
    from collegium_evolution.scoreboards.scoring import calls_of

    await store.fold([folding(1, word(make, 1, 0.5, domain="law")), Folding(2, 1_002, calls_of(call))])
    (score,) = (await store.board()).scores
    assert (score.calls, score.judged, score.score_sum) == (1, 1, 0.5)
    assert await store.erase("acme") == 2, "the word, and the hour it was counted in"
    assert await store.erase("acme") == 0
    assert await judged(store) == {("m", "law"): (1, 0.5)}


async def test_clients_cannot_make_domains_without_end(pool: asyncpg.Pool, make: Any, rng: random.Random) -> None:
    store = Store(pool, "scoreboard")
    words = [folding(n + 1, word(make, n, 1.0, domain=f"d{n}")) for n in range(DOMAINS_MAX + 20)]
    await store.fold(words)
    found = await pool.fetch("SELECT domain, judged FROM evolution.scores")
    assert len(found) == DOMAINS_MAX + 1
    assert dict(map(tuple, found))[OTHER_DOMAINS] == 20
    # What is replaced there is taken out there.
    again = folding(9_000, word(make, DOMAINS_MAX + 19, 0.0, domain=f"d{DOMAINS_MAX + 19}"))
    await store.fold([again])
    total = await pool.fetchrow("SELECT sum(judged), sum(score_sum) FROM evolution.scores")
    assert tuple(total) == (DOMAINS_MAX + 20, DOMAINS_MAX + 19)
    # What one tenant names takes no room from another, nor from itself.
    others = folding(9_001, word(make, 1, 1.0, domain="law", tenant="globex"))
    await store.fold([others, folding(9_002, word(make, 2, 1.0, domain="d7"))])
    found = dict(map(tuple, await pool.fetch("SELECT domain, judged FROM evolution.scores")))
    assert (found["law"], found["d7"], found["d2"]) == (1, 2, 0), "a word moves between domains that are known"
    assert OutcomeKey("acme", "x", "client") != OutcomeKey("acme", "x", "outcome")
