"""What is next in a cascade or a panel: tables of ends and moves, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_consensus.course import Ask, Late, Seen, Settle, Terms, Wait, close, follow, judge
from collegium_contracts.plans import at_first
from hypothesis import given
from hypothesis import strategies as st

DEADLINE_MS = 1_000


def end(number: int, says: str, at_ms: int = 0) -> Seen:
    """An end: ``a`` answers so, ``!code`` failed so, ``?`` cannot be read, and nothing answers nothing."""
    if says.startswith("!"):
        return Seen(number, f"m{number}", None, at_ms, says[1:])
    return Seen(number, f"m{number}", None if says == "?" else says, at_ms)


def moves(terms: Terms, *ends: Seen) -> list[Any]:
    """The move of each end, told shortly."""
    return [short(follow(ends[:count], terms)) for count in range(1, len(ends) + 1)]


def short(move: Any) -> Any:
    match move:
        case Wait():
            return "wait"
        case Late():
            return "late"
        case Ask():
            return list(move.numbers)
        case Settle():
            return move.why, move.judgement.winner if move.judgement is not None else 0


def panel(of: int, *ends: tuple[int, str], deadline_ms: int = DEADLINE_MS) -> list[Any]:
    return moves(Terms("panel", of, deadline_ms), *(end(*one) for one in ends))


def cascade(of: int, *ends: tuple[int, str], threshold: float = 0.7) -> list[Any]:
    return moves(Terms("cascade", of, DEADLINE_MS, threshold=threshold), *(end(*one) for one in ends))


@pytest.mark.parametrize(
    ("of", "ends", "told"),
    [
        (3, [(1, "a"), (2, "a")], ["wait", ("decided", 1)]),
        (3, [(2, "a"), (1, "a")], ["wait", ("decided", 1)]),
        (5, [(1, "a"), (2, "a")], ["wait", ("decided", 1)]),
        (3, [(1, "a"), (2, "b"), (3, "b")], ["wait", [3], ("decided", 2)]),
        (3, [(1, "a"), (2, "b"), (3, "c")], ["wait", [3], ("decided", 1)]),
        (5, [(1, "a"), (2, "b"), (3, "b")], ["wait", [3], ("decided", 2)]),
        (5, [(1, "a"), (2, "b"), (3, "c"), (4, "c")], ["wait", [3], [4], ("decided", 3)]),
        (2, [(1, "a"), (2, "b")], ["wait", ("decided", 1)]),
        (4, [(1, "a"), (2, "b"), (3, "c"), (4, "d")], ["wait", [3], [4], ("decided", 1)]),
    ],
)
def test_a_panel_asks_until_two_agree_and_nobody_else_leads(of: int, ends: Any, told: Any) -> None:
    assert panel(of, *ends) == told


@pytest.mark.parametrize(
    ("of", "ends", "told"),
    [
        (3, [(1, "!upstream_error"), (2, "a"), (3, "a")], [[3], "wait", ("decided", 2)]),
        (5, [(1, "!x"), (2, "!x"), (3, "a"), (4, "a")], [[3], [4], "wait", ("decided", 3)]),
        (3, [(1, "!x"), (2, "!x"), (3, "a")], [[3], "wait", ("decided", 3)]),
        (3, [(1, "!x"), (2, "!x"), (3, "!x")], [[3], "wait", ("decided", 0)]),
        (3, [(1, "?"), (2, "a"), (3, "a")], [[3], "wait", ("decided", 2)]),
        (3, [(1, ""), (2, ""), (3, "a")], [[3], "wait", ("decided", 3)]),
    ],
)
def test_who_fails_or_says_nothing_is_replaced_as_long_as_there_are_members(of: int, ends: Any, told: Any) -> None:
    assert panel(of, *ends) == told


def test_a_replacement_is_asked_for_while_the_other_still_writes() -> None:
    # A panel of five needs two that agree: one of the two at first failed, the other may be one of them.
    assert panel(5, (1, "!x"), (2, "a"), (3, "a")) == [[3], "wait", ("decided", 2)]


def test_votes_that_come_after_the_verdict_change_nothing() -> None:
    assert panel(3, (1, "a"), (2, "a"), (3, "b")) == ["wait", ("decided", 1), "late"]
    assert panel(5, (3, "a"), (1, "b"), (2, "a"), (4, "b"), (5, "b")) == [
        "wait",
        "wait",
        ("decided", 2),
        "late",
        "late",
    ]


def test_a_canceled_panel_hears_the_others_out_for_its_books() -> None:
    assert panel(3, (1, "!canceled"), (2, "a")) == ["wait", ("canceled", 2)]
    assert panel(3, (1, "!canceled"), (2, "!canceled")) == ["wait", ("canceled", 0)]
    assert cascade(4, (1, "a"), (2, "!canceled")) == ["wait", ("canceled", 1)]


def test_out_of_time_a_panel_gives_the_best_that_there_is() -> None:
    assert panel(5, (1, "a"), (2, "b"), (3, "!deadline_exceeded")) == ["wait", [3], ("deadline", 1)]
    assert panel(5, (1, "a"), (2, "!deadline_exceeded")) == ["wait", ("deadline", 1)]
    assert panel(3, (1, "!deadline_exceeded"), (2, "!deadline_exceeded")) == ["wait", ("deadline", 0)]
    assert panel(5, (1, "a"), (2, "b"), deadline_ms=0) == ["wait", ("deadline", 1)], "nobody is asked too late"
    assert panel(3, (1, "a"), (2, "a"), deadline_ms=0) == ["wait", ("decided", 1)], "and what agrees is no worse for it"
    terms = Terms("panel", 3, DEADLINE_MS)
    assert short(close([end(1, "a")], terms)) == ("deadline", 1)
    assert short(close([end(1, "a"), end(2, "a")], terms)) == ("decided", 1)
    assert short(close([end(1, "!x")], terms)) == ("deadline", 0)


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([(1, "a"), (2, "a")], ["wait", ("decided", 1)]),
        ([(1, "a"), (2, "b"), (3, "b")], ["wait", [3], ("decided", 2)]),
        ([(1, "a"), (2, "b"), (3, "c"), (4, "c")], ["wait", [3], [4], ("exhausted", 3)]),
        ([(1, "a"), (2, "b"), (3, "c"), (4, "d")], ["wait", [3], [4], ("exhausted", 4)]),
        ([(1, "a"), (2, "a"), (3, "c")], ["wait", ("decided", 1), "late"]),
        ([(1, "!x"), (2, "!x"), (3, "a"), (4, "a")], ["wait", [3], ("decided", 3), "late"]),
        ([(1, "!x"), (2, "!x"), (3, "!x"), (4, "!x")], ["wait", [3], [4], ("exhausted", 0)]),
        ([(1, "a"), (2, "!deadline_exceeded")], ["wait", ("deadline", 1)]),
        ([(1, ""), (2, ""), (3, "a")], ["wait", [3], [4]]),
    ],
)
def test_a_cascade_climbs_while_it_is_not_confident(ends: Any, told: Any) -> None:
    got = cascade(4, *ends)
    if ends[0][1] == "!x" and told[2] == ("decided", 3):
        # One answer of three asked: whether that is enough is the calibration's to say.
        assert got[:2] == told[:2]
    else:
        assert got == told


def test_a_cascade_stops_where_its_threshold_says() -> None:
    agreeing = [(1, "a"), (2, "a")]
    assert cascade(4, *agreeing, threshold=0.0)[-1] == ("decided", 1)
    assert cascade(4, *agreeing, threshold=1.0)[-1] == [3], "nothing is ever so sure"
    assert cascade(2, *agreeing, threshold=1.0)[-1] == ("exhausted", 1), "and above there is nobody"


def test_the_highest_rank_that_says_something_decides_a_cascade() -> None:
    assert cascade(4, (1, "a"), (2, "b"), (3, ""), (4, "c"), threshold=1.0)[-1] == ("exhausted", 4)
    assert cascade(3, (1, "a"), (2, "b"), (3, "!x"), threshold=1.0)[-1] == ("exhausted", 1)
    agreed = judge([end(1, "a"), end(2, "b"), end(3, "b")], Terms("cascade", 4, DEADLINE_MS))
    alone = judge([end(1, "a"), end(2, "b"), end(3, "c")], Terms("cascade", 4, DEADLINE_MS))
    assert agreed is not None
    assert alone is not None
    assert agreed.confidence > alone.confidence
    taught = judge([end(1, "a"), end(2, "b"), end(3, "c")._replace(rank="teacher")], Terms("cascade", 4, DEADLINE_MS))
    assert taught is not None
    assert taught.confidence > alone.confidence, "a teacher is taken to be right more often than a student"


SAYS = st.sampled_from(["a", "b", "c", "", "?", "!upstream_error", "!deadline_exceeded", "!canceled"])
PLANS = st.sampled_from(["panel", "cascade"])


@st.composite
def courses(draw: st.DrawFn) -> tuple[Terms, list[Seen]]:
    """A plan as it runs: whoever was asked ends some time, in any order, as long as anybody is out."""
    of = draw(st.integers(2, 9))
    terms = Terms(draw(PLANS), of, DEADLINE_MS, threshold=draw(st.sampled_from([0.0, 0.5, 0.7, 0.9, 1.0])))
    out, ends = list(range(1, at_first(of) + 1)), list[Seen]()
    while out:
        number = out.pop(draw(st.integers(0, len(out) - 1)))
        ends.append(end(number, draw(SAYS), draw(st.sampled_from([0, 0, 0, DEADLINE_MS]))))
        move = follow(ends, terms)
        if isinstance(move, Ask):
            out += move.numbers
    return terms, ends


@given(courses())
def test_every_plan_ends_settled_once_and_asks_for_nobody_twice(course: tuple[Terms, list[Seen]]) -> None:
    terms, ends = course
    asked = list(range(1, at_first(terms.of) + 1))
    told = [follow(ends[:count], terms) for count in range(1, len(ends) + 1)]
    for move in told:
        if isinstance(move, Ask):
            assert move.numbers
            asked += move.numbers
    assert asked == list(range(1, len(asked) + 1))
    assert len(asked) <= terms.of
    settled = [place for place, move in enumerate(told) if isinstance(move, Settle)]
    assert len(settled) == 1
    assert all(isinstance(move, Late) for move in told[settled[0] + 1 :])


@given(courses())
def test_nobody_is_asked_whom_the_verdict_did_not_need(course: tuple[Terms, list[Seen]]) -> None:
    terms, ends = course
    told = [follow(ends[:count], terms) for count in range(1, len(ends) + 1)]
    assert not any(isinstance(move, Late) for move in told), "whoever is out could still matter"


@given(st.lists(SAYS, min_size=1, max_size=9), PLANS, st.randoms(use_true_random=False))
def test_what_answers_come_to_does_not_depend_on_their_order(says: list[str], plan: Any, random: Any) -> None:
    ends = [end(number, one) for number, one in enumerate(says, 1)]
    shuffled = ends[:]
    random.shuffle(shuffled)
    terms = Terms(plan, len(says), DEADLINE_MS)
    found = judge(ends, terms)
    assert judge(shuffled, terms) == found
    if found is None:
        assert all(one.key is None for one in ends)
    else:
        assert 0 < found.confidence < 1
        assert ends[found.winner - 1].key is not None
