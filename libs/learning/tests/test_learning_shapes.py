"""Which type of answer a request wants, and which texts are compared by what they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from collegium_contracts.content import Answer, Choice
from collegium_contracts.parts import Sampling
from collegium_learning.answers.clusters import clustered, meant
from collegium_learning.answers.shapes import TEXT, Shape, form_of, shape_of
from hypothesis import given
from hypothesis import strategies as st


def formatted(schema: Any) -> Shape | None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return shape_of(Sampling(response_format=json.dumps(wanted).encode()))


@pytest.mark.parametrize(
    ("schema", "shape"),
    [
        ({"type": "object", "properties": {}}, Shape("json")),
        ({"type": "integer"}, Shape("number")),
        ({"type": "number"}, Shape("number")),
        ({"type": "boolean"}, Shape("label", ("true", "false"))),
        ({"type": "string"}, Shape("text")),
        ({"type": "string", "enum": ["yes", "no"]}, Shape("label", ("yes", "no"))),
        ({"enum": ["yes"]}, Shape("json")),
        ({"enum": [1, 2]}, Shape("json")),
        ({}, Shape("json")),
    ],
)
def test_a_schema_says_how_answers_are_compared(schema: Any, shape: Shape):
    assert formatted(schema) == shape


def test_what_a_request_states_comes_first_and_nothing_is_nothing():
    assert shape_of(Sampling(answer="label", labels=["a", "b"])) == Shape("label", ("a", "b"))
    assert shape_of(Sampling(answer="text", response_format=b'{"type":"json_object"}')) == Shape("text")
    assert shape_of(Sampling(response_format=b'{"type":"json_object"}')) == Shape("json")
    assert shape_of(Sampling(response_format=b'{"type":"text"}')) is None
    assert shape_of(Sampling()) is None


@given(st.binary(max_size=60))
def test_no_response_format_breaks_it(raw: bytes):
    assert shape_of(Sampling(response_format=raw)) is None or raw


def test_only_texts_of_several_words_are_compared_by_what_they_mean():
    assert meant("the meeting was moved to monday")
    for short in ("", "paris", "a b c d e", "12 of 30", "\x00calls and more words here", "x" * 5_000):
        assert not meant(short)
    texts = {1: "the meeting was moved to monday", 2: "they moved the meeting to monday", 3: "nobody knows when it is"}
    vectors = {texts[1]: (1.0, 0.0), texts[2]: (0.99, 0.1), texts[3]: (0.0, 1.0)}
    keys = clustered(texts, lambda wanted: [vectors[text] for text in wanted])
    assert keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize("text", ['{"a": 1}', " [1, 2]\n", '```json\n{"a": 1}\n```'])
def test_an_answer_has_the_form_of_json_as_a_whole(text: str):
    assert form_of(Answer([Choice(text)])) == Shape("json")


@pytest.mark.parametrize("text", ["", None, "1", '"a"', "[see below]", 'so: {"a": 1}', "{a}", "[" * 5_000])
def test_whatever_else_it_is_has_the_form_of_text(text: str | None):
    assert form_of(Answer([Choice(text)])) == TEXT
    assert form_of(Answer([])) == TEXT
