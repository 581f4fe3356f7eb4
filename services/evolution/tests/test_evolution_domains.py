"""Discovered domains in evolution: found beside the loop, known by their ids, merged by hand, learned from."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from collegium_contracts.domain_requests import DomainRow
from collegium_contracts.domains import is_topic, topic_id
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.routing import FEATURES_PURPOSE
from collegium_evolution.domains.child import FindingFailedError, answered, found
from collegium_evolution.domains.discovering import Discovered, Topic, as_domain, discovered, earlier, given
from collegium_evolution.policies.decided import Decided
from collegium_evolution.policies.decided_store import Judged
from collegium_evolution.policies.gathering import gathered
from collegium_learning.domains.fitting import ROWS_MIN, Found, find
from collegium_learning.domains.mapping import Mapper, unit
from collegium_learning.routing.features import TRAITS, pack, row_of

WIDE = 24
CENTRES = unit(np.random.default_rng(3).normal(size=(3, WIDE)).astype(np.float32))


def questions(rows: int, seed: int, of: int = 3) -> np.ndarray:
    draw = np.random.default_rng(seed)
    noise = unit(draw.normal(size=(rows, WIDE)).astype(np.float32))
    return unit(CENTRES[np.arange(rows) % of] + 0.4 * noise)


def clusters(seen: np.ndarray) -> Found:
    told = find(seen)
    assert told is not None
    return told


def first(seen: np.ndarray, known: list[Topic] | None = None) -> Discovered:
    return discovered("acme", clusters(seen), [""] * len(seen), known or [], "mini", 1, 100)


@pytest.mark.long
async def test_a_child_finds_what_would_be_found_here():
    seen = questions(240, 1)
    told = await found(seen)
    assert told is not None
    assert [one.tobytes() for one in told[1:4]] == [one.tobytes() for one in clusters(seen)[1:4]]
    assert told.places.tolist() == clusters(seen).places.tolist()


async def test_a_child_that_takes_too_long_is_ended():
    with pytest.raises(FindingFailedError):
        await found(questions(ROWS_MIN, 1), seconds=0.001)


def test_a_child_says_that_there_is_nothing():
    asked = msgspec.msgpack.encode([3, questions(3, 1).tobytes()])
    assert msgspec.msgpack.decode(answered(asked)) is None


def test_domains_have_ids_of_their_tenant_alone_and_none_twice():
    made = first(questions(240, 1))
    ids = [topic.row.id for topic in made.topics]
    assert sorted(ids) == sorted(topic_id("acme", number) for number in (1, 2, 3))
    assert all(is_topic(one) for one in ids)
    assert topic_id("globex", 1) not in ids
    assert made.map.clusters == made.map.domains == ids
    assert {topic.row.state for topic in made.topics} == {"live"}
    assert sum(topic.row.questions for topic in made.topics) == sum(bool(one) for one in made.clusters)


def test_what_is_found_again_keeps_its_id_its_name_and_its_first_day_and_what_is_not_is_retired():
    seen = questions(240, 1)
    made = first(seen)
    known = [Topic(msgspec.structs.replace(made.topics[0].row, named="cards"), 1), *made.topics[1:]]
    fewer = questions(240, 2, of=2)
    former = earlier(Mapper(made.map), "mini", fewer, [""] * len(fewer))
    again = discovered("acme", clusters(fewer), former, known, "mini", 2, 900)
    states = sorted((topic.row.state, topic.row.first_at_ms, topic.row.last_at_ms) for topic in again.topics)
    assert states == [("live", 100, 900), ("live", 100, 900), ("retired", 100, 100)]
    assert "cards" in {topic.row.named for topic in again.topics}
    # What was given up once is given to nothing else.
    anew = questions(240, 3)
    former = earlier(Mapper(again.map), "mini", anew, [""] * len(anew))
    third = discovered("acme", clusters(anew), former, again.topics, "mini", 3, 950)
    assert {topic.number for topic in third.topics} == {1, 2, 3, 4}
    assert len({topic.row.id for topic in third.topics}) == 4


def test_another_embedder_is_bridged_by_what_questions_were_labelled_as():
    made = first(questions(240, 1))
    labels = [*made.clusters[:239], "law"]
    other = -questions(240, 1)
    former = earlier(Mapper(made.map), "large", other, labels)
    assert former == [*made.clusters[:239], ""]
    again = discovered("acme", clusters(other), former, made.topics, "large", 2, 900)
    assert sorted(again.map.clusters) == sorted(made.map.clusters)


def test_a_merged_domain_is_given_as_the_other_and_stays_so_when_found_again():
    seen = questions(240, 1)
    made = first(seen)
    source, into = made.map.clusters[:2]
    merged = [
        Topic(msgspec.structs.replace(topic.row, into=into, state="merged"), topic.number)
        if topic.row.id == source
        else topic
        for topic in made.topics
    ]
    former = earlier(Mapper(made.map), "mini", seen, [""] * len(seen))
    again = discovered("acme", clusters(seen), former, merged, "mini", 2, 900)
    place = again.map.clusters.index(source)
    assert again.map.domains[place] == into
    assert {topic.row.id: topic.row.state for topic in again.topics}[source] == "merged"
    assert as_domain(source, Mapper(again.map)) == into
    assert as_domain("law", Mapper(again.map)) == "law"


def test_mergers_follow_each_other_and_a_circle_ends():
    assert given(["a", "b", "c"], {"a": "b", "b": "c"}) == ["c", "c", "c"]
    assert given(["a"], {"a": "b", "b": "a"}) == ["b"]


async def test_a_policy_learns_of_questions_that_named_no_domain_by_the_one_they_are_of():
    seen = questions(240, 1)
    made = first(seen)
    traits = np.zeros(len(TRAITS), np.float32)
    keyring = IdentityKeyring()
    of = [
        Decided(
            "acme", f"t{at}", 1, "m", "ta", "law" if at == 0 else "", at, 5, 100, embedder="mini",
            features=keyring.seal("acme", pack(row_of(seen[at], traits)), FEATURES_PURPOSE),
        )
        for at in range(12)
    ]  # fmt: skip
    without = Decided("acme", "t99", 1, "m", "ta", "", 99, 5, 100)
    judged = [Judged(one, 1.0, 0) for one in [*of, without]]
    found_domains = (await gathered(keyring, "acme", judged, Mapper(made.map))).lessons.domains
    assert found_domains == ("law", *made.clusters[1:12], "")
    assert (await gathered(keyring, "acme", judged)).lessons.domains == ("law", *[""] * 12)


def test_rows_tell_nothing_that_was_said():
    row = DomainRow(id="topic-1", tenant="acme", state="live", questions=1, of_questions=2, first_at_ms=0, last_at_ms=0)
    assert row.terms == []
    assert Envelope("k", b"n", b"x") not in msgspec.structs.astuple(row)
