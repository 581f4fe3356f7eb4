"""Judges: both orders, ties, length, nonsense; and what a panel asks of them, whatever they say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_consensus.course import Ask, Late, Seen, Settle, Terms, Wait, follow
from collegium_consensus.judging import Heard, Shown, again, order, outcome, prompt, read, response_format
from collegium_contracts.content import decode_messages
from collegium_contracts.plans import JUDGE_ATTEMPTS, JUDGE_PROMPT_BYTES
from hypothesis import given
from hypothesis import strategies as st

SHOWN = [Shown(1, 1, 100), Shown(2, 2, 100)]
A, B, TIE = '{"winner": "A"}', '{"winner": "B"}', '{"winner": "tie"}'


def heard(text: str | None, model: str = "j") -> Heard:
    return Heard(model, "teacher", text)


def came(first: list[str | None], second: list[str | None], shown: Any = SHOWN, **trusted: float) -> Any:
    judges = [heard(text, f"j{place}") for place, text in enumerate(first)]
    others = [heard(text, f"j{place}") if text is not None else None for place, text in enumerate(second)]
    return outcome("pairwise", shown, judges, others, trusted)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (A, 0), (B, 1), (TIE, -1), (f"Sure!\n```json\n{B}\n```", 1), ('{"winner": "A", "reason": "x"}', 0),
        (None, None), ("", None), ("A", None), ('{"winner": "C"}', None), ('{"winner": 1}', None), ("{" * 9_000, None),
        ("x" * 30_000 + A, None), ('{"winner": "A"} {"winner": "B"}', None),
    ],
)  # fmt: skip
def test_a_verdict_is_read_or_it_is_none(text: str | None, place: int | None):
    assert read("pairwise", text, 2) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"scores": {"A": 7, "B": 4}}', 0), ('{"scores": {"A": 4, "B": 4.5}}', 1),
        ('{"scores": {"A": 4, "B": 4}}', -1),
        ('{"scores": {"A": 7}}', None), ('{"scores": {"A": 7, "B": 11}}', None),
        ('{"scores": {"A": 7, "B": "x"}}', None),
    ],
)  # fmt: skip
def test_scores_are_read_or_they_are_none(text: str, place: int | None):
    assert read("rubric", text, 2) == place


def test_the_same_preference_in_both_orders_counts_and_a_flip_is_a_tie():
    assert came([A, A], [B, B])[:2] == (1, 1.0)
    assert came([B], [A])[:2] == (2, 1.0)
    flipped = came([A], [A])
    assert (flipped.number, flipped.share, flipped.judged[0].note) == (0, None, "flipped")
    assert [one.note for one in came([TIE, A, "?", None], [None, TIE, None, None]).judged] == [
        "one order only", "tie", "unreadable", "no answer",
    ]  # fmt: skip


def test_judges_who_differ_weigh_what_is_known_of_them():
    assert came([A, B], [B, A]).number == 0
    decided = came([A, B], [B, A], j0=0.9, j1=0.6)
    assert decided.number == 1
    assert 0.5 < decided.share < 1
    # A judge that was no better than chance so far still counts where it is alone.
    assert came([A], [B], j0=0.3).number == 1


def test_a_much_longer_answer_counts_half():
    long = [Shown(1, 1, 1_000), Shown(2, 2, 100)]
    assert came([A, B], [B, A], long).number == 2
    assert came([A], [B], long).number == 1


def test_a_prompt_shows_answers_without_names_in_both_orders_and_within_its_bound():
    first, second = (prompt("pairwise", "why?", [f"text {one.number}" for one in order(n, 3, SHOWN)]) for n in (4, 6))
    told = [decode_messages(plain)[-1].content for plain in (first, second)]
    assert "<answer A>\ntext 1\n" in str(told[0])
    assert "<answer A>\ntext 2\n" in str(told[1])
    assert len(prompt("rubric", "\U0001f600" * 10**6, ["\x01" * 10**6] * 9)) <= JUDGE_PROMPT_BYTES
    assert msgspec.json.decode(response_format("rubric"))["type"] == "json_schema"


def end(number: int, says: str | None, error: str = "") -> Seen:
    return Seen(number, f"m{number}", says, 0, error)


TERMS = Terms("panel", 3, 1_000, judge="pairwise")
DIFFERENT = [end(1, "a"), end(2, "b"), end(3, "c")]


def test_a_panel_that_stays_undecided_asks_judges_in_one_order_then_in_the_other():
    move = follow(DIFFERENT, TERMS)
    assert isinstance(move, Ask)
    assert (move.numbers, move.reason) == ((4, 5), "judging")
    assert isinstance(follow([*DIFFERENT, end(4, B)], TERMS), Wait)
    move = follow([*DIFFERENT, end(4, B), end(5, B)], TERMS)
    assert isinstance(move, Ask)
    assert move.numbers == (6, 7)
    ends = [*DIFFERENT, end(4, B), end(5, B), end(7, A), end(6, A)]
    settled = follow(ends, TERMS)
    assert isinstance(settled, Settle)
    assert settled.judgement is not None
    assert settled.judgement.winner == 2
    evidence = settled.judgement.evidence
    assert evidence is not None
    assert (evidence.judge, [one.camp for one in evidence.judged], len(evidence.said)) == (1.0, [2, 2], 3)
    assert isinstance(follow([*ends, end(8, A)], TERMS), Late)


def test_a_judge_that_answers_nonsense_is_ignored_and_the_verdict_says_why():
    move = follow([*DIFFERENT, end(4, "No idea."), end(5, B)], TERMS)
    assert isinstance(move, Ask)
    assert move.numbers == (6,)
    settled = follow([*DIFFERENT, end(4, "No idea."), end(5, B), end(6, A)], TERMS)
    assert isinstance(settled, Settle)
    assert settled.judgement is not None
    assert settled.judgement.winner == 2
    nobody = follow([*DIFFERENT, end(4, "No idea."), end(5, None, "upstream_error")], TERMS)
    assert isinstance(nobody, Settle)
    assert nobody.judgement is not None
    assert nobody.judgement.winner == 1
    assert nobody.judgement.evidence is not None
    assert [one.note for one in nobody.judgement.evidence.judged] == ["unreadable", "no answer"]


def test_a_panel_that_agrees_or_says_nothing_asks_nobody():
    for ends in (
        [end(1, "a"), end(2, "a")],
        [end(1, "a"), end(2, "b"), end(3, "a")],
        [end(1, ""), end(2, ""), end(3, "")],
        [end(1, "a"), end(2, ""), end(3, None, "upstream_error")],
    ):
        assert isinstance(follow(ends, TERMS), Settle)
    assert isinstance(follow(DIFFERENT, TERMS._replace(judge=None)), Settle)


WORDS = st.one_of(st.none(), st.sampled_from([A, B, TIE, "?", '{"scores": {"A": 1, "B": 2}}']))


@given(st.permutations(range(1, 3)), st.lists(WORDS, min_size=4, max_size=4), st.sampled_from(["pairwise", "rubric"]))
def test_whatever_judges_say_a_panel_ends_after_few_of_them(turn: list[int], said: list[str | None], mode: Any):
    terms, ends = TERMS._replace(judge=mode), list(DIFFERENT)
    move: Any = follow(ends, terms)
    asked = 0
    while isinstance(move, Ask):
        asked += len(move.numbers)
        for number in sorted(move.numbers, key=lambda number: turn[(number - 4) % 2]):
            ends.append(end(number, said[number - 4], "" if said[number - 4] else "upstream_error"))
            move = follow(ends, terms)
            assert not isinstance(move, Late)
    assert isinstance(move, Settle)
    assert move.judgement is not None
    assert move.judgement.winner in (1, 2, 3)
    assert asked <= JUDGE_ATTEMPTS
    shown = SHOWN
    assert again(mode, shown, [heard(said[0]), heard(said[1])]) == sorted(
        again(mode, shown, [heard(said[0]), heard(said[1])])
    )
