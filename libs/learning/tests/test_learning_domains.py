"""Domains: found in rows that crowd together, the same ones again when more is asked, named by their words alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from collegium_contracts.domains import DomainMap
from collegium_learning.domains.fitting import ROWS_MIN, Found, find
from collegium_learning.domains.keeping import kept
from collegium_learning.domains.mapping import MapError, Mapper, unit
from collegium_learning.domains.naming import terms
from collegium_learning.routing.features import TRAITS, row_of

WIDE = 40
TOPICS = unit(np.random.default_rng(3).normal(size=(5, WIDE)).astype(np.float32))


def questions(rows: int, seed: int, of: int = 5, strange: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Questions around so many topics, and a share that is around none."""
    draw = np.random.default_rng(seed)
    topic = draw.integers(0, of, rows)
    topic[draw.random(rows) < strange] = -1
    noise = unit(draw.normal(size=(rows, WIDE)).astype(np.float32))
    found = np.where((topic >= 0)[:, None], TOPICS[topic] + 0.45 * noise, noise)
    return unit(found), topic


def a_map(found: Found, **fields: object) -> DomainMap:
    names = [f"topic-{place}" for place in range(len(found.centroids))]
    wide, near = found.projection.shape
    made = DomainMap(
        tenant="acme", version=1, created_at_ms=0, embedder="mini", dimensions=wide, near_dimensions=near,
        mean=found.mean.tobytes(), projection=found.projection.tobytes(), centroids=found.centroids.tobytes(),
        reaches=found.reaches, clusters=names, domains=names,
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


@pytest.fixture(scope="module")
def found() -> Found:
    clusters = find(questions(600, 1)[0])
    assert clusters is not None
    return clusters


def test_questions_around_topics_are_found_and_those_around_none_are_none(found: Found):
    mapper = Mapper(a_map(found))
    seen, topic = questions(400, 2)
    places = mapper.places(seen)
    assert len(found.centroids) == 5
    own = [set(places[topic == one]) - {-1} for one in range(5)]
    assert all(len(one) == 1 for one in own)
    assert len(set.union(*own)) == 5
    assert (places[topic >= 0] >= 0).mean() > 0.95
    assert (places[topic < 0] < 0).mean() > 0.6


def test_one_question_is_of_the_domain_that_many_say_it_is_of(found: Found):
    mapper = Mapper(a_map(found))
    seen, _ = questions(50, 4)
    traits = np.zeros(len(TRAITS), np.float32)
    assert [mapper.of("mini", row_of(one, traits)) for one in seen] == mapper.domains_of(seen)
    assert mapper.of("other", row_of(seen[0], traits)) == ""
    assert mapper.of("mini", row_of(seen[0][:-1], traits)) == ""


def test_a_merged_cluster_keeps_its_id_and_gives_anothers(found: Found):
    names = [f"topic-{place}" for place in range(5)]
    mapper = Mapper(a_map(found, domains=["topic-1", *names[1:]]))
    seen, _ = questions(300, 4)
    assert "topic-0" in mapper.clusters_of(seen)
    assert "topic-0" not in mapper.domains_of(seen)


def test_too_few_questions_and_such_without_crowds_show_nothing():
    assert find(questions(ROWS_MIN - 1, 1)[0]) is None
    alone = unit(np.random.default_rng(5).normal(size=(ROWS_MIN, WIDE)).astype(np.float32))
    clusters = find(alone)
    assert clusters is None or (clusters.places >= 0).mean() < 0.5


def test_a_map_without_clusters_gives_nothing():
    mapper = Mapper(DomainMap(tenant="acme", version=2, created_at_ms=0))
    assert mapper.of("", np.zeros(WIDE + len(TRAITS), np.float32)) == ""
    assert mapper.domains_of(TOPICS) == [""] * 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": 2}, {"domains": ["one"]}, {"reaches": [float("nan")] * 5}, {"mean": b"\x00" * 3},
        {"centroids": np.full((5, 40), np.nan, "<f4").tobytes()}, {"near_dimensions": 41},
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_no_map(found: Found, wrong: dict[str, object]):
    with pytest.raises(MapError):
        Mapper(a_map(found, **wrong))


def test_ids_stay_when_more_is_asked_and_a_new_topic_has_a_new_one(found: Found):
    four = find(questions(400, 1, of=4, strange=0.0)[0])
    assert four is not None
    assert len(four.centroids) == 4
    seen, _ = questions(900, 7)
    again = find(seen)
    assert again is not None
    ids = kept(again.places, len(again.centroids), Mapper(a_map(four)).clusters_of(seen))
    assert sorted(ids) == ["", "topic-0", "topic-1", "topic-2", "topic-3"]
    # The same crowd has the same id: by the centroids of both.
    for place, name in enumerate(ids):
        if name:
            before = four.mean + four.projection @ four.centroids[int(name[-1])]
            now = again.mean + again.projection @ again.centroids[place]
            assert float(unit(before) @ unit(now)) > 0.9


def test_an_id_is_kept_by_the_larger_part_and_not_by_what_shares_little():
    before = ["a"] * 10 + ["b"] * 10 + [""] * 10
    places = [0] * 7 + [1] * 3 + [2] * 1 + [-1] * 9 + [2] * 9 + [3] * 1
    assert kept(places, 4, before) == ["a", "", "", ""]
    assert kept([], 2, []) == ["", ""]


def test_terms_tell_domains_apart_and_words_of_few_are_none():
    cards = [f"my card was lost in the city, number {place}" for place in range(10)]
    loans = [f"which loan rates has the bank {'Maximilian' if place < 3 else ''}" for place in range(10)]
    found = terms({"a": cards, "b": loans, "c": ["how?"]})
    assert {"card", "lost"} <= set(found["a"])
    assert "loan" in found["b"]
    assert "maximilian" not in found["b"]
    assert found["c"] == []
