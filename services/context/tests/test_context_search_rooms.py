"""Fusion, its weight, and what is done to a ranked list."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from collegium_context.documents import naming
from collegium_context.search import filtering
from collegium_context.search.answers import Answers
from collegium_context.search.fusion import fused
from collegium_context.search.measures import ndcg, recall
from collegium_context.search.profiles import factor_of, problem_of
from collegium_context.search.shaping import over_threshold, spread, within_budget
from collegium_context.search.tuning import DEFAULT_WEIGHT, WEIGHT_MAX, Agreements, agreement, fitted_weight
from collegium_context.vectors.interface import Between
from collegium_contracts.knowledge import DocumentMeta, FieldTest, ProfileWeights, SearchFilters
from collegium_contracts.scope import Scope
from hypothesis import given
from hypothesis import strategies as st


class Found(NamedTuple):
    id: str
    score: float


def listed(*ids: str) -> list[Found]:
    return [Found(one, 1.0 / (place + 1)) for place, one in enumerate(ids)]


def test_what_both_sides_find_is_first_and_everything_is_explained() -> None:
    found = fused(listed("a", "b", "c"), listed("b", "d"), 0.5)
    assert [one.id for one in found] == ["b", "a", "d", "c"]
    assert found[0].dense is not None
    assert found[0].words is not None
    assert (found[0].dense.rank, found[0].words.rank, found[0].score) == (2, 1, 0.75)
    assert found[-1].words is None


@pytest.mark.parametrize(("dense", "words"), [(["a", "b"], []), ([], ["a", "b"])])
def test_a_side_alone_keeps_its_order(dense: list[str], words: list[str]) -> None:
    found = fused(listed(*dense), listed(*words), 0.3)
    assert [(one.id, one.score) for one in found] == [("a", 1.0), ("b", 0.5)]


@given(st.lists(st.floats(-1, 1), max_size=20), st.lists(st.floats(0, 50), max_size=20), st.floats(0, 1))
def test_scores_are_from_0_to_1_and_best_first(dense: list[float], words: list[float], weight: float) -> None:
    near = [Found(f"p{n}", score) for n, score in enumerate(sorted(dense, reverse=True))]
    said = [Found(f"p{2 * n}", score) for n, score in enumerate(sorted(words, reverse=True))]
    scores = [one.score for one in fused(near, said, weight)]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
    assert len(scores) == len({one.id for one in (*near, *said)})


def test_a_dense_side_that_never_agrees_loses_its_weight() -> None:
    agreements = Agreements()
    assert agreements.of("acme").weight == DEFAULT_WEIGHT
    for _ in range(200):
        agreements.see("acme", listed(*(f"x{n}" for n in range(10))), listed(*(f"y{n}" for n in range(10))))
        agreements.see("other", listed(*map(str, range(10))), listed(*map(str, range(10))))
        agreements.see("short", listed("a"), listed("b"))
    assert agreements.of("acme").weight < 0.03
    assert agreements.of("other").weight == WEIGHT_MAX
    assert agreements.of("short").weight == DEFAULT_WEIGHT
    assert agreement(listed(*"abcdefghij"), listed(*"jihgfxyzuv")) == 0.5


def test_a_weight_is_fitted_only_where_it_gains_on_what_was_held_out() -> None:
    assert fitted_weight(100, lambda _one, weight: 1 - abs(weight - 0.8), 0.4) == pytest.approx(0.8)
    random = np.random.default_rng(1).normal(size=(100, 22))
    assert fitted_weight(100, lambda one, weight: float(random[one, round(weight * 20)]), 0.4) == 0.4
    assert fitted_weight(5, lambda _one, weight: weight, 0.4) == 0.4


class Scored(NamedTuple):
    name: str
    score: float


def test_diversity_prefers_what_is_different() -> None:
    found = [Scored("a", 1.0), Scored("a again", 0.99), Scored("b", 0.7)]
    vectors = [np.array(v, np.float32) for v in ([1, 0], [1, 0.01], [0, 1])]
    assert [one.name for one, _ in spread(found, vectors, diversity=0.0, limit=2)] == ["a", "a again"]
    assert [one.name for one, _ in spread(found, vectors, diversity=0.5, limit=2)] == ["a", "b"]
    assert [one.name for one, _ in spread(found, [None] * 3, diversity=0.5, limit=3)] == ["a", "a again", "b"]
    assert over_threshold(found, 0.9) == found[:2]


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 300))
def test_a_budget_is_kept_in_order(tokens: list[int], budget: int) -> None:
    kept = within_budget(tokens, budget)
    assert sum(tokens[place] for place in kept) <= budget
    assert kept == sorted(kept)
    assert within_budget(tokens, None) == list(range(len(tokens)))


def test_a_profile_multiplies_what_applies_within_bounds() -> None:
    weights = ProfileWeights(tags={"a": 5.0, "b": 4.0}, fields={"n": {"2": 0.5}, "ok": {"true": 3.0}})
    assert factor_of(weights, ["a"], {"n": 2.0}) == 2.5
    assert factor_of(weights, ["a", "b"], {}) == 10.0
    assert factor_of(weights, [], {"ok": True, "n": "other"}) == 3.0
    assert problem_of(ProfileWeights(tags={"x": 11.0}))
    assert not problem_of(weights)


def test_answers_are_of_one_scope_and_version() -> None:
    answers: Answers[str] = Answers(entries_max=3, of_tenant_max=2)
    acme, other = Scope("acme"), Scope("other")
    answers.put(acme, 1, b"q", "found")
    assert answers.get(acme, 1, b"q") == "found"
    for scope, version in ((acme, 2), (other, 1), (acme.at("p"), 1)):
        assert answers.get(scope, version, b"q") is None
    for number in range(5):
        answers.put(other, 1, b"%d" % number, "x")
    assert answers.get(acme, 1, b"q") == "found"
    assert answers.get(other, 1, b"0") is None
    answers.forget("acme")
    assert answers.get(acme, 1, b"q") is None


def test_measures() -> None:
    assert ndcg(["a", "b"], {"a"}) == 1.0
    assert ndcg(["b", "a"], {"a"}) == pytest.approx(0.6309, abs=1e-4)
    assert recall(["a", "b"], {"a", "z"}) == 0.5
    assert (ndcg([], {"a"}), recall([], set())) == (0.0, 0.0)


def problem(**fields: Any) -> str:
    return filtering.problem_of(SearchFilters(**fields))


def nested(depth: int) -> SearchFilters:
    made = SearchFilters(tags=["x"])
    for _ in range(depth - 1):
        made = SearchFilters(not_=made)
    return made


@pytest.mark.parametrize(
    "fields",
    [
        {"fields": {"n": []}},
        {"fields": {"n": FieldTest()}},
        {"fields": {"n": FieldTest(not_=[])}},
        {"fields": {"n": FieldTest(gt=1, gte=1)}},
        {"fields": {"n": FieldTest(lt=1, lte=1)}},
        {"fields": {"n": FieldTest(gte=2, lt=1)}},
        {"fields": {"n": FieldTest(gte=2, lt="2026-01-01")}},
        {"fields": {"n": FieldTest(gte="yesterday")}},
        {"fields": {"n": FieldTest(gte="2026-13-01")}},
        {"fields": {"n": FieldTest(gte="2026-02-01", lte="2026-01-01")}},
        {"any_": [SearchFilters(), SearchFilters(tags=["x"])]},
        {"not_": SearchFilters()},
        {"not_": nested(filtering.DEPTH_MAX)},
        {"not_": SearchFilters(fields={"n": FieldTest(lt=1, lte=1)})},
        {"any_": [SearchFilters(tags=[f"t{n}"]) for n in range(filtering.VALUES_MAX)]},
        {"fields": {"n": FieldTest(not_=["x"] * (filtering.VALUES_MAX + 1))}},
        {"from_ms": 10**30},
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    assert problem(**fields)


def test_what_a_filter_may_say() -> None:
    assert problem() == problem(not_=nested(filtering.DEPTH_MAX - 1)) == ""
    assert (
        problem(fields={"n": FieldTest(gt=1, lte=1.5, not_=[1.2, "x"]), "d": FieldTest(lt="2026-01-01T10:00:00Z")})
        == ""
    )


def test_bounds_are_of_numbers_or_of_dates() -> None:
    meta = DocumentMeta(fields={"n": 7, "yes": True, "day": "2026-05-01", "at": "2026-05-01T02:00:00+02:00", "s": "7"})
    measures = naming.measures_of("acme", meta)
    assert sorted(measures.values()) == [7.0, 1777593600.0, 1777593600.0]
    where = filtering.where_of(
        "acme", SearchFilters(fields={"n": FieldTest(gt=6, lte=7), "day": FieldTest(lt="2026-05-02")})
    )
    assert where is not None
    number, day = where.must
    assert isinstance(number, Between)
    assert isinstance(day, Between)
    assert (number.low, number.high, number.is_above, number.is_below) == (6, 7, True, False)
    assert measures[number.field] == 7.0
    assert (measures[day.field], day.high, day.is_below) == (1777593600.0, 1777680000.0, True)
    assert filtering.where_of("acme", SearchFilters()) is None
    assert not measures.keys() & naming.measures_of("other", meta).keys(), "a field's name tells nothing to others"
