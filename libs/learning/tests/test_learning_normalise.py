"""When two answers are the same."""

from __future__ import annotations

import pytest
from collegium_learning.answers.normalise import FOLDED_CHARS_MAX, normalise
from hypothesis import given
from hypothesis import strategies as st

SAME = [
    ("Paris", "paris"),
    ("Paris", "**Paris.**"),
    ("Paris", "  `Paris`\n"),
    ("Paris", "“Paris!”"),
    ("Paris", "# Paris"),
    ("Straße", "STRASSE"),
    ("ﬁne", "Fine"),
    ("it’s", "It's."),
    ("1000", "1,000.0"),
    ("1,234,567.50", "1234567.5"),
    ("-5", "−5"),
    ("x is 3.00", "X is 3"),
    ("a  b\tc", "A b C"),
    ("New York", "new\u00a0york"),
]
DIFFERENT = [
    ("5", "-5"),
    ("5", "50%"),
    ("50", "50%"),
    (".5", "5"),
    ("1.10.0", "1.1.0"),
    ("C", "C#"),
    ("C", "C++"),
    ("10,5", "105"),
    ("yes", "no"),
    ("?", "!"),
    ("$5", "5"),
    ("ab", "a b"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_answers_that_differ_in_form_only_are_equal(first: str, second: str) -> None:
    assert normalise(first) == normalise(second)


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_answers_that_differ_in_substance_stay_different(first: str, second: str) -> None:
    assert normalise(first) != normalise(second)


@given(st.text(max_size=60) | st.from_regex(r"[-*_#.,0-9 a-z`%]{0,20}", fullmatch=True))
def test_normalising_again_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(st.text(alphabet="abcxyz 0123456789", min_size=1, max_size=20).filter(str.strip), st.sampled_from("*_`\"'([ "))
def test_wrapping_an_answer_changes_nothing(text: str, wrapping: str) -> None:
    assert normalise(wrapping * 2 + text + wrapping * 2) == normalise(text)


def test_a_text_too_long_to_fold_is_compared_but_for_white_space() -> None:
    text = "Word, " * FOLDED_CHARS_MAX
    assert normalise(text) == normalise(text.replace(" ", "\n"))
    assert normalise(text) != normalise(text.lower())
