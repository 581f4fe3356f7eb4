"""Prompt students: chosen to be spread, bounded, told by what answers have in common, refused where there are none."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from collegium_learning.prompts.asking import texts_of, turns_of
from collegium_learning.prompts.distilling import Verified, distilled, instruction
from collegium_learning.prompts.prompt import (
    BYTES_MAX,
    EXEMPLARS_MAX,
    Exemplar,
    Prompt,
    PromptError,
    pack,
    size_of,
    unpack,
)

PROMPT = Prompt(base="small", instruction="be brief", exemplars=[Exemplar("q", "a"), Exemplar("r", "b")])


def verified(count: int, *, size: int = 10, teachers: int | None = None) -> tuple[list[Verified], np.ndarray]:
    vectors = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    teachers = count if teachers is None else teachers
    found = [Verified(f"question {at}", f"answer {at} " + "x" * size, f"t{at}", at < teachers) for at in range(count)]
    return found, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_prompt_goes_through_its_bytes_and_adds_what_it_says_it_adds():
    assert unpack(pack(PROMPT)) == PROMPT
    assert size_of(PROMPT) == len("be brief") + 4
    assert texts_of(PROMPT) == ["be brief", "q", "a", "r", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2}, {"base": ""}, {"instruction": ""}, {"instruction": "x" * 5_000}, {"exemplars": []},
        {"exemplars": [Exemplar("q", "a")] * (EXEMPLARS_MAX + 1)}, {"exemplars": [Exemplar("q", "")]},
        {"exemplars": [Exemplar("q", "x" * BYTES_MAX)]},
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused_as_a_whole(wrong: dict[str, object]):
    broken = msgspec.structs.replace(PROMPT, **wrong)
    with pytest.raises(PromptError):
        pack(broken)
    with pytest.raises(PromptError):
        unpack(msgspec.msgpack.encode(broken))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x00" * (2 * BYTES_MAX + 1)])
def test_bytes_that_are_none_are_refused(content: bytes):
    with pytest.raises(PromptError):
        unpack(content)


def test_examples_come_before_what_was_said_and_that_stays_as_it_was():
    history = b'[{"role":"user","content":"before","x":1.0}]'
    turns = turns_of(texts_of(PROMPT), history)
    assert turns.endswith(b'{"role":"user","content":"before","x":1.0}]')
    said = [(one["role"], one["content"]) for one in json.loads(turns)]
    assert said == [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"), ("user", "before")]
    assert len(json.loads(turns_of(texts_of(PROMPT), None))) == 4


def test_examples_are_spread_bounded_and_of_teachers_where_there_are_enough():
    samples, vectors = verified(60, teachers=30)
    made = distilled(samples, vectors, "small")
    assert len(made.tasks) == EXEMPLARS_MAX
    assert all(int(task[1:]) < 30 for task in made.tasks)
    assert unpack(pack(made.prompt)).samples == 60
    chosen = vectors[[int(task[1:]) for task in made.tasks]]
    drawn = vectors[:EXEMPLARS_MAX]
    apart = [float((rows @ rows.T - 2 * np.eye(len(rows))).max()) for rows in (chosen, drawn)]
    assert apart[0] < apart[1]
    few, some = verified(60, teachers=3)
    assert any(int(task[1:]) >= 3 for task in distilled(few, some, "small").tasks)


def test_long_answers_make_fewer_examples_and_too_long_ones_none():
    samples, vectors = verified(20, size=1_900)
    made = distilled(samples, vectors, "small")
    assert 1 <= len(made.tasks) < EXEMPLARS_MAX
    assert size_of(made.prompt) <= BYTES_MAX
    with pytest.raises(PromptError):
        distilled(*verified(20, size=3_000), "small")
    with pytest.raises(PromptError):
        distilled(*verified(5), "small")


def test_the_instruction_says_what_answers_have_in_common():
    assert 'of these, and nothing else: "no"; "yes"' in instruction(["yes"] * 6 + ["no"] * 4)
    objects = [json.dumps({"name": str(at), "age": at}) for at in range(10)]
    assert 'with the fields "age", "name"' in instruction(objects)
    assert "2 to 4 words" in instruction(
        [" ".join(["word"] * (2 + at % 3)) + f" {at}"[:0] + "!" * at for at in range(30)]
    )
    assert "words" in instruction(["[" * 100_000] * 2 + [f"some {at}" for at in range(9)])
