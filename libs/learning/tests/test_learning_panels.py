"""What is learned from panels of before."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from collegium_learning.choices import fit_choices
from collegium_learning.panels import Learned, Stacked, Vote, aggregate
from collegium_learning.panels.dawid_skene import estimate
from collegium_learning.panels.history import Outcome, Record, shares_of, strength_of
from collegium_learning.panels.learning import asked_in_order, is_right, learn, learn_panel, rehearsed

SHARES = {"a": 0.8, "b": 0.6, "c": 0.55, "d": 0.5}


def panels(count: int, shares: dict[str, float], seed: int, answers: int = 8, domain: str = "sums") -> list[Outcome]:
    """Questions with whole numbers for answers; those who are wrong say half a number as often as another whole one."""
    drawn = random.Random(seed)
    made: list[Outcome] = []
    for _ in range(count):
        right = [drawn.random() < share for share in shares.values()]
        keys = ["0" if good else drawn.choice([str(drawn.randrange(1, answers)), "1/2"]) for good in right]
        made.append(Outcome(domain, tuple(map(Vote, keys, shares)), tuple(right)))
    return made


def accuracy(outcomes: list[Outcome], stacked: Stacked) -> float:
    return sum(is_right(outcome, stacked) for outcome in outcomes) / len(outcomes)


def test_what_was_learned_is_above_the_count_and_the_best_member() -> None:
    learned = learn(panels(300, SHARES, 1))
    unseen = panels(600, SHARES, 2)
    plain = sum(
        outcome.right[tally.winner]
        for outcome in unseen
        if (tally := aggregate(dict(enumerate(outcome.votes)))) is not None
    )
    best = sum(outcome.right[0] for outcome in unseen)
    assert accuracy(unseen, learned.of("sums")) > max(plain, best) / len(unseen) + 0.03


def test_a_panel_of_those_who_err_alike_is_left_to_its_best_member() -> None:
    drawn = random.Random(3)
    outcomes = []
    for _ in range(200):
        good = drawn.random() < 0.9
        outcomes.append(
            Outcome(
                "d",
                (Vote("1" if good else "2", "best"), *(Vote("3", f"echo {n}") for n in range(4))),
                (good, *[False] * 4),
            )
        )
    learned = learn(outcomes)
    assert accuracy(outcomes, learned.of("d")) == sum(outcome.right[0] for outcome in outcomes) / 200


def test_nothing_is_learned_from_nothing() -> None:
    assert learn([]) == Learned() == learn_panel([Outcome("d", (), ())])
    learned = learn([Outcome("d", (Vote("", "a"),), (False,))])
    assert aggregate({1: Vote("x", "a"), 2: Vote("x", "b"), 3: Vote("y", "c")}, learned.of("d")) is not None


def test_what_was_learned_is_data() -> None:
    learned = learn(panels(60, SHARES, 4))
    assert msgspec.json.decode(msgspec.json.encode(learned), type=Learned) == learned
    assert learn(panels(60, SHARES, 4)) == learned


def test_a_row_is_rehearsed_without_its_own_outcome() -> None:
    outcomes = panels(40, SHARES, 5)
    other = [
        msgspec.structs.replace(outcome, right=tuple(not good for good in outcome.right)) if place == 7 else outcome
        for place, outcome in enumerate(outcomes)
    ]
    first, second = rehearsed(outcomes), rehearsed(other)
    assert first[7] == second[7]
    assert sum(one != two for one, two in zip(first, second, strict=True)) == 32


def test_fewer_are_asked_and_few_answers_are_lost() -> None:
    stacked = learn(panels(300, SHARES, 6)).of("sums")
    unseen = panels(400, SHARES, 7)
    asked = [asked_in_order(outcome, stacked)[0] for outcome in unseen]
    assert sum(asked) / len(asked) < 3.2
    early = sum(
        outcome.right[tally.winner] for outcome in unseen if (tally := asked_in_order(outcome, stacked)[1]) is not None
    )
    assert early / len(unseen) > accuracy(unseen, stacked) - 0.03


def test_shares_are_shrunk_where_little_was_seen() -> None:
    outcomes = [Outcome("d", (Vote("x", "a"), Vote("x", "b")), (True, place % 2 == 0)) for place in range(100)]
    outcomes.append(Outcome("new", (Vote("x", "a"), Vote("x", "c")), (False, True)))
    shares = shares_of(outcomes)
    assert 0.95 < shares.of("a", "d") <= 0.98
    assert 0.6 < shares.of("a", "new") < shares.of("a", "d")
    assert 0.5 < shares.of("c", "new") < 0.98
    assert shares.of("unheard of", "d") == pytest.approx(shares.everyone)


def test_groups_that_differ_are_shrunk_less_than_groups_that_do_not() -> None:
    alike = [Record(100, right) for right in (49, 50, 51, 50)]
    apart = [Record(100, right) for right in (10, 50, 90, 30)]
    assert strength_of(apart) < 10 < strength_of(alike)


def test_choices_are_fitted_as_by_the_closed_form() -> None:
    terms = np.array([[1.0], [0.0]] * 100)
    chosen = np.array([1.0, 0.0] * 75 + [0.0, 1.0] * 25)
    found = fit_choices(terms, np.arange(0, 200, 2), chosen, np.ones(100), np.zeros(1), np.full(1, 1e-9))
    assert found[0] == pytest.approx(np.log(3.0), abs=1e-6)
    held = fit_choices(terms, np.arange(0, 200, 2), chosen, np.ones(100), np.full(1, -2.0), np.full(1, 1e9))
    assert held[0] == pytest.approx(-2.0, abs=1e-4)


def test_dawid_and_skene_find_who_is_right_without_being_told() -> None:
    shares = {"a": 0.9, "b": 0.75, "c": 0.6, "d": 0.35, "e": 0.7}
    outcomes = panels(800, shares, 8, answers=12)
    found = estimate([[(vote.member, vote.key) for vote in outcome.votes] for outcome in outcomes])
    for name, share in shares.items():
        assert found.right[name] == pytest.approx(share, abs=0.06)
    best = sum(max(answers, key=answers.__getitem__) == "0" for answers in found.answers)
    assert best / len(outcomes) > 0.9


def test_dawid_and_skene_by_hand() -> None:
    one = estimate([[("a", "x"), ("b", "x"), ("c", "y")]], {"a": 0.8, "b": 0.8, "c": 0.8}, answers=4)
    a, c = one.right["a"], one.right["c"]
    x, y = a * a * (1 - c) / 3, ((1 - a) / 3) ** 2 * c
    none = ((1 - a) / 3) ** 2 * (1 - c) / 3
    assert one.answers[0]["x"] == pytest.approx(x / (x + y + none), abs=1e-4)
    assert a == pytest.approx((4 * 0.8 + one.answers[0]["x"]) / 5, abs=1e-4)
    assert estimate([]).right == {}
    assert estimate([[("a", "")]]).answers == [{}]
