"""What students know already, whose answers were rejected, soft targets, and what must not be trained on."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_contracts.content import ChatMessage
from collegium_learning.distill.evaluating import contaminated
from collegium_learning.distill.lines import Line, preference, response
from collegium_learning.distill.soft import softened, targets
from collegium_learning.distill.tries import Tried, known_already, rejected
from hypothesis import given
from hypothesis import strategies as st

LINE = Line(
    [ChatMessage("user", "2+2?")], "4", 0.9, "big", "mit", 5, "tsk_1", "two and two", [[("4", -0.1), ("5", -2.5)]]
)


def tried(answer: str | None = "4", **more: Any) -> Tried:
    about: dict[str, Any] = {"model": "small", "rank": "student", "same": None, "escalated": False}
    return Tried(answer=answer, **(about | more))


@pytest.mark.parametrize(
    ("tries", "knows"),
    [
        ([tried(" 4 ")], True),
        ([tried("5")], False),
        ([tried("4", escalated=True)], False),
        ([tried("4", rank="teacher")], False),
        ([tried("4", model="big")], False),
        ([tried(None, same=True)], True),
        ([tried(None, same=False)], False),
        ([], False),
    ],
)
def test_a_student_knows_what_it_said_right_and_surely(tries: list[Tried], knows: bool):
    assert known_already(tries, "big", "4") == knows


def test_other_answers_were_rejected_each_once_and_say_why():
    tries = [tried("5", escalated=True), tried(" 5", model="other"), tried("4"), tried("six", model="mid", rank="ta")]
    assert rejected(tries, "big", "4") == [("small", "5", "escalated"), ("mid", "six", "outvoted")]
    assert rejected(tries[:1], "person:experts", "4") == [("small", "5", "person")]


def test_a_higher_temperature_tells_more_of_what_was_nearly_said():
    told = [("yes", math.log(0.9)), ("no", math.log(0.1))]
    assert softened(told, 1.0) == {"yes": 0.9, "no": 0.1}
    assert softened(told, 4.0)["no"] > 0.3
    assert softened(told, 0.1)["no"] < 1e-6
    with pytest.raises(ValueError, match="a temperature is"):
        softened(told, 0.0)


@given(
    st.lists(st.tuples(st.text(max_size=3), st.floats(-1e6, 0)), min_size=1, max_size=5),
    st.floats(0.05, 20),
)
def test_probabilities_add_up_to_one(told: list[tuple[str, float]], temperature: float):
    assert math.isclose(sum(softened(told, temperature).values()), 1.0, abs_tol=1e-5)


def test_what_is_not_a_number_is_no_target():
    assert targets([[("a", math.nan)], [("b", -math.inf)], [("c", 0.0)]], 1.0) == [
        {"token": "c", "probabilities": {"c": 1.0}}
    ]


def read(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line)


def test_lines_hold_what_their_shape_says():
    assert read(response(LINE, with_reasoning=True))["messages"][-1]["reasoning_content"] == "two and two"
    assert "reasoning_content" not in read(response(LINE))["messages"][-1]
    soft = read(response(LINE, temperature=2.0))["soft_targets"]
    assert (soft["temperature"], soft["tokens"][0]["token"]) == (2.0, "4")
    weighed = read(response(LINE, with_worth=True, mean_worth=0.6))
    assert (weighed["weight"], weighed["metadata"]["score"], weighed["metadata"]["licence"]) == (1.5, 0.9, "mit")
    assert set(read(response(LINE, bare=True))) == {"messages"}
    pair = read(preference(LINE, "small", "5", "escalated"))
    assert (pair["non_preferred_output"][0]["content"], pair["metadata"]["source"]) == ("5", "escalated")
    assert set(read(preference(LINE, "small", "5", "escalated", bare=True))) == {
        "input", "preferred_output", "non_preferred_output",
    }  # fmt: skip


def test_what_is_like_an_evaluation_item_is_found_by_words_and_by_sense():
    item = "Natalia sold clips to forty eight of her friends in April and then she sold half as many in May"
    texts = [item.upper(), f"Please solve: {item}. How many?", "something else", "the same sense in other words"]
    vectors = np.eye(5)[[1, 2, 3, 4]]
    assert contaminated(texts, [item], vectors, np.eye(5)[[4]]) == [True, True, False, True]
    assert contaminated(texts, [], vectors, np.zeros((0, 5))) == [False] * 4
