"""Votes, their tally, and when enough were asked."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from collegium_learning.answers.forms import Forms, form_of
from collegium_learning.panels import (
    NOTHING_KNOWN,
    Known,
    Reliability,
    Stacked,
    Vote,
    aggregate,
    asking_order,
    is_settled,
)
from collegium_learning.panels.stopping import leads
from collegium_learning.panels.votes import weight_of
from hypothesis import given
from hypothesis import strategies as st

MEMBERS = "abcde"
SHARES = {"a": 0.9, "b": 0.7, "c": 0.7, "d": 0.4, "e": 0.2}
KNOWN: list[Known] = [
    NOTHING_KNOWN,
    Reliability(right=SHARES),
    Reliability(right=SHARES, best="a"),
    Stacked(right=SHARES),
    Stacked(right=SHARES, forms=Forms({"integer": 50, "words": 20}, {"integer": 40})),
    Stacked(right=SHARES, best="b"),
]
votes = st.dictionaries(
    st.integers(1, 20),
    st.builds(Vote, st.sampled_from(["", "1", "2", "3.5", "no idea at all about this"]), st.sampled_from(MEMBERS)),
    max_size=9,
)


@pytest.mark.parametrize("known", KNOWN)
@given(cast=votes, order=st.randoms(use_true_random=False))
def test_the_order_of_votes_changes_nothing(known: Known, cast: dict[int, Vote], order: Any) -> None:
    items = list(cast.items())
    order.shuffle(items)
    assert aggregate(dict(items), known) == aggregate(cast, known)


@pytest.mark.parametrize("known", KNOWN)
@given(cast=votes, names=st.permutations(MEMBERS))
def test_what_members_are_called_changes_nothing(known: Known, cast: dict[int, Vote], names: list[str]) -> None:
    new = dict(zip(MEMBERS, names, strict=True))
    renamed = {number: Vote(vote.key, new[vote.member]) for number, vote in cast.items()}
    right = {new[name]: share for name, share in known.right.items()}
    other = msgspec.structs.replace(known, right=right, best=new[known.best] if known.best else None)
    assert aggregate(renamed, other) == aggregate(cast, known)


@pytest.mark.parametrize("known", KNOWN)
@given(cast=votes)
def test_a_tally_is_defined_for_any_votes(known: Known, cast: dict[int, Vote]) -> None:
    tally = aggregate(cast, known)
    if not cast:
        assert tally is None
        return
    assert tally is not None
    assert tally.winner in cast
    assert tally.asked == len(cast)
    assert tally.votes == sum(1 for vote in cast.values() if vote.key)
    assert 0.0 <= tally.probability <= 1.0
    assert sorted(number for camp in tally.camps for number in camp.numbers) == sorted(cast)
    assert bool(cast[tally.winner].key) == bool(tally.votes)
    assert tally.agreeing == sum(1 for vote in cast.values() if vote.key and vote.key == cast[tally.winner].key)


def test_without_a_record_the_most_votes_win_and_the_first_of_equals() -> None:
    cast = {1: Vote("x", "a"), 2: Vote("y", "b"), 3: Vote("y", "c"), 4: Vote("x", "d"), 5: Vote("", "e")}
    tally = aggregate(cast)
    assert tally is not None
    assert (tally.winner, tally.agreeing, tally.votes, tally.asked) == (1, 2, 4, 5)
    both = aggregate(cast | {6: Vote("y", "f")})
    assert both is not None
    assert (both.winner, both.agreeing) == (2, 3)


def test_one_that_is_right_far_above_chance_is_never_voted_against() -> None:
    assert weight_of(0.4, 10.0) == pytest.approx(math.log(9 * 0.4 / 0.6))
    assert weight_of(0.4, 10.0) > 0.0 > math.log(0.4 / 0.6)
    assert weight_of(0.1, 10.0) == pytest.approx(0.0)
    assert weight_of(1.0, 10.0) == weight_of(0.98, 10.0) < math.inf
    assert weight_of(0.0, 2.0) == 0.0


def test_a_reliable_one_outweighs_two_who_are_not() -> None:
    known = Reliability(right={"good": 0.95, "weak": 0.15, "poor": 0.15})
    tally = aggregate({1: Vote("x", "weak"), 2: Vote("x", "poor"), 3: Vote("y", "good")}, known)
    assert tally is not None
    assert tally.winner == 3


@pytest.mark.parametrize("known", [Reliability(best="a"), Stacked(best="a")])
def test_where_the_panel_is_not_above_its_best_member_that_one_decides(known: Known) -> None:
    cast = {1: Vote("x", "b"), 2: Vote("x", "c"), 3: Vote("y", "a")}
    tally = aggregate(cast, known)
    assert tally is not None
    assert tally.winner == 3
    assert is_settled({3: cast[3]}, ["b", "c"], known)
    assert not is_settled({1: cast[1], 2: cast[2]}, ["a"], known)
    without = aggregate({1: cast[1], 2: cast[2], 3: Vote("", "a")}, known)
    assert without is not None
    assert without.winner == 1


def test_a_form_that_was_never_right_loses_to_one_that_was() -> None:
    known = Stacked(
        weights={"weight_ten": 0.5, "form": 1.0, "none": 1.0},
        forms=Forms({"integer": 100, "words": 100}, {"integer": 80}),
    )
    tally = aggregate({1: Vote("it can be shown that so", "a"), 2: Vote("12", "b")}, known)
    assert tally is not None
    assert tally.winner == 2
    assert form_of("12") == "integer"
    assert form_of("-3/4") == "fraction"
    assert form_of("x" * 1_000_000) == "word"


@pytest.mark.parametrize("rule", ["first_two", "beta", "decided"])
@given(cast=votes)
def test_a_panel_for_which_nobody_waits_is_settled(rule: Any, cast: dict[int, Vote]) -> None:
    assert is_settled(cast, [], rule=rule)
    assert not is_settled({}, ["a"], rule=rule)


@given(cast=votes, waiting=st.lists(st.sampled_from(MEMBERS), max_size=3), key=st.sampled_from(["1", "2", "new"]))
def test_what_is_decided_stays_so_whatever_those_say_who_wait(
    cast: dict[int, Vote], waiting: list[str], key: str
) -> None:
    known = Reliability(right=SHARES)
    if waiting and is_settled(cast, waiting, known, "decided"):
        before, after = (
            aggregate(cast, known),
            aggregate(cast | {100 + place: Vote(key, name) for place, name in enumerate(waiting)}, known),
        )
        assert before is not None
        assert after is not None
        assert before.winner == after.winner


def test_two_that_agree_settle_and_two_that_do_not_do_not() -> None:
    assert is_settled({1: Vote("x", "a"), 2: Vote("x", "b")}, ["c", "d", "e"])
    assert not is_settled({1: Vote("x", "a"), 2: Vote("y", "b")}, ["c", "d", "e"])
    assert not is_settled({1: Vote("", "a"), 2: Vote("", "b")}, ["c", "d", "e"])


@pytest.mark.parametrize("make", [Reliability, Stacked])
def test_two_that_agree_settle_unless_another_answer_may_still_be_right(make: Any) -> None:
    agreeing = {1: Vote("x", "a"), 2: Vote("x", "b")}
    assert is_settled(agreeing, ["c", "d", "e"], make(right={"a": 0.8, "b": 0.8}))
    assert not is_settled(agreeing, ["c", "d", "e"], make(right={"a": 0.15, "b": 0.15}))
    against = {**agreeing, 3: Vote("y", "d")}
    assert is_settled(against, ["c", "e"], make(right={"a": 0.8, "b": 0.8, "d": 0.3}))
    assert not is_settled(against, ["c", "e"], make(right={"a": 0.4, "b": 0.4, "d": 0.9}))


def test_a_disagreement_is_settled_by_a_learned_tally_alone() -> None:
    right, cast = {"a": 0.98, "b": 0.3}, {1: Vote("x", "a"), 2: Vote("y", "b")}
    weights = {"weight_ten": 1.0, "none": 1.0}
    assert is_settled(cast, ["c", "d"], Stacked(right=right, weights=weights))
    assert not is_settled({1: cast[1]}, ["b", "c", "d"], Stacked(right=right, weights=weights))
    assert not is_settled(cast, ["c", "d"], Reliability(right=right, unknown=0.9))


def test_beta_stopping_is_the_published_rule() -> None:
    assert leads(1, 0) == pytest.approx(0.75)
    assert leads(4, 0) == pytest.approx(0.96875)
    assert leads(5, 3) == pytest.approx(0.74609375)
    assert not is_settled({n: Vote("x", "a") for n in (1, 2, 3)}, ["b"] * 9, rule="beta")
    assert is_settled({n: Vote("x", "a") for n in (1, 2, 3, 4)}, ["b"] * 9, rule="beta")


def test_those_are_asked_first_who_are_right_most_cheaply() -> None:
    assert asking_order({"a": 0.5, "b": 0.9, "c": 0.9}) == ["b", "c", "a"]
    assert asking_order({"a": 0.5, "b": 0.9}, {"a": 1.0, "b": 10.0}) == ["a", "b"]
    assert asking_order({"a": 0.5, "b": 0.9}, {"a": 1.0}) == ["b", "a"]
