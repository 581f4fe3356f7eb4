"""What answers say, by their type, and free text that means the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from collegium_learning.answers.clusters import clustered
from collegium_learning.answers.extraction import AnswerType, json_value, key_of, kind_of
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("42", "42"),
        ("$1,234.50", "2469/2"),
        ("0.75", "3/4"),
        ("3/4", "3/4"),
        (r"\frac{3}{4}", "3/4"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("160 minutes", "160"),
        ("The answer is **42**.", "42"),
        (r"so we get \boxed{17}", "17"),
        ("words " * 1_000 + "\n#### 12", "12"),
        ("words " * 1_000 + "\nIn the end he has 7 of 12 apples.", "12"),
        ("x = 3", "3"),
        ("I don't know", ""),
        ("Cannot be determined with the given information", ""),
        ("___", ""),
        ("None", ""),
        ("", ""),
        ("1010_3", "1010_3"),
        ("5^2", "5^2"),
        ("86 glasses and 42 plates", "86 glasses and 42 plates"),
        ("9" * 200, "9" * 200),
    ],
)
def test_numbers(text: str, key: str) -> None:
    assert key_of(text, "number") == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B) Paris", "B"),
        ("**C.**", "C"),
        ("The answer is (D) because A is wrong", "D"),
        ("Apples", "apples"),
    ],
)
def test_choices(text: str, key: str) -> None:
    assert key_of(text, "choice") == key


def test_labels() -> None:
    labels = ["refund", "late refund", "Other"]
    assert key_of("Refund.", "label", labels) == "refund"
    assert key_of("This is about a late refund", "label", labels) == "late refund"
    assert key_of("refund or other? Answer: other", "label", labels) == "other"
    assert key_of("a bit of refund, a bit of other", "label", labels) == "a bit of refund, a bit of other"


def test_json_is_compared_by_value() -> None:
    assert key_of('{"b": 1.0, "a": [1, 2]}', "json") == key_of('```json\n{"a":[1,2],"b":1}\n```', "json")
    assert key_of("{'a': 'x'}", "json") == key_of('{"a": "x"}', "json")
    assert key_of("abc", "json") == key_of("'abc'", "json") != key_of("Abc", "json")
    assert key_of("(1, 2)", "json") != key_of("[1, 2]", "json")
    assert key_of("{1: 2}", "json") != key_of('{"1": 2}', "json")
    assert key_of("[1]", "json") != key_of("[[1]]", "json")
    assert key_of("[]", "json") != ""


def test_what_does_not_pass_the_schema_is_no_answer() -> None:
    def is_valid(value: Any) -> bool:
        return isinstance(value, dict) and "a" in value

    assert json_value('{"a": 1}', is_valid) == '{"a":1}'
    assert json_value('{"b": 1}', is_valid) == ""
    assert json_value("no JSON", is_valid) == ""


@pytest.mark.parametrize("kind", ["text", "number", "choice", "label", "json"])
@given(text=st.text(max_size=200))
def test_any_text_has_a_key(kind: AnswerType, text: str) -> None:
    assert isinstance(key_of(text, kind, ["a", "b c"]), str)


@pytest.mark.parametrize("kind", ["text", "number", "choice", "label", "json"])
@pytest.mark.parametrize(
    "text", ["9" * 1_000_000, "[" * 1_000_000, "a " * 500_000, "\\boxed{" * 100_000, "-" * 1_000_000]
)
def test_a_megabyte_is_read_in_bounded_time(kind: AnswerType, text: str) -> None:
    assert key_of(text, kind, ["a", "b"]) is not None


def test_the_type_is_that_of_most_right_answers() -> None:
    assert kind_of(["1", "2.5", "$3", "4 apples"]) == "number"
    assert kind_of(["A", "(b)", "C."]) == "choice"
    assert kind_of(["[1]", "{'a': 1}", "'x'", "plain"]) == "json"
    assert kind_of(["yes", "it depends on the case", "1"]) == "text"
    assert kind_of([]) == "text"


VECTORS = {"paris": [1.0, 0.0], "it is paris": [0.99, 0.1], "it is not paris": [0.99, 0.11], "lyon": [0.0, 1.0]}


def embed(texts: Sequence[str]) -> list[list[float]]:
    return [VECTORS.get(text, [0.7, 0.7]) for text in texts]


def test_texts_that_mean_the_same_share_a_key() -> None:
    keys = clustered({1: "Paris", 2: "It is Paris.", 3: "Lyon", 4: "It is not Paris", 5: ""}, embed)
    assert keys[1] == keys[2]
    assert len({keys[1], keys[3], keys[4]}) == 3
    assert keys[5] == ""


def test_numbers_keep_texts_apart_however_near_they_are() -> None:
    keys = clustered({1: "about 5 days", 2: "about 6 days", 3: "around 5 days"}, embed)
    assert keys[1] == keys[3] != keys[2]


@given(order=st.permutations(["Paris", "It is Paris.", "Lyon", "It is not Paris", "Paris"]))
def test_groups_do_not_depend_on_the_order_of_texts(order: list[str]) -> None:
    keys = clustered(dict(enumerate(order)), embed)
    named = {text: keys[place] for place, text in enumerate(order)}
    assert named["Paris"] == named["It is Paris."] == "it is paris"
    assert named["Lyon"] == "lyon"
