"""Which samples are trained on, and the lines they become."""

from __future__ import annotations

import msgspec
import numpy as np
from collegium_contracts.content import ChatMessage
from collegium_learning.distill.lines import Line, preferences, response
from collegium_learning.distill.selecting import CLUSTER_MAX, choose, covered, is_held_out, plain
from hypothesis import given
from hypothesis import strategies as st


def ids(count: int, *, held: bool = False) -> list[str]:
    return [one for one in (f"tsk_{number:05}" for number in range(100 + 10 * count)) if is_held_out(one) == held][
        :count
    ]


def apart(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 32))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_one_in_ten_is_held_out_for_ever():
    share = sum(is_held_out(f"tsk_{number}") for number in range(10_000)) / 10_000
    assert 0.085 < share < 0.115
    assert [is_held_out("a"), is_held_out("a")] == [is_held_out("a")] * 2


def test_the_same_text_is_taken_once_and_what_is_contradicted_never():
    texts = ["Refund me", "refund  ME ", "where is it", "where is it", "log in"]
    chosen = choose(texts, ids(5), apart(5), ["r", "r", "d", "l", "l"], 100)
    assert chosen.trained == [0, 4]
    assert chosen.left_out == {"duplicate": 1, "contradicted": 2}


def test_what_nearly_equals_a_held_out_sample_is_not_trained_on():
    vectors = apart(3)
    vectors[1] = vectors[0]
    names = [*ids(1, held=True), *ids(2)]
    chosen = choose(["a", "b", "c"], names, vectors, ["x", "x", "x"], 100)
    assert (chosen.trained, chosen.held_out, chosen.left_out) == ([2], [0], {"like_held_out": 1})


def test_a_crowd_of_one_label_is_thinned_and_others_are_not():
    vectors = np.repeat(apart(1), 60, axis=0) + 0.01 * apart(60, seed=2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = ["a"] * 50 + ["b"] * 10
    chosen = choose([f"text {n}" for n in range(60)], ids(60), vectors, labels, 100)
    assert [labels[place] for place in chosen.trained].count("a") == CLUSTER_MAX
    assert [labels[place] for place in chosen.trained].count("b") == 10


def test_a_cover_reaches_every_corner():
    corners = np.eye(4)
    vectors = np.concatenate([np.repeat(corners[:1], 40, axis=0), corners[1:]])
    assert {int(np.argmax(vectors[place])) for place in covered(range(43), vectors, 4)} == {0, 1, 2, 3}


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz")), max_size=30), st.integers(1, 10))
def test_the_choice_does_not_depend_on_the_order_and_keeps_its_bound(rows: list[tuple[str, str]], most: int):
    names, vectors = ids(30), apart(30)
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    count = len(rows)
    forward = choose(texts, names[:count], vectors[:count], labels, most)
    backward = choose(texts[::-1], names[:count][::-1], vectors[:count][::-1], labels[::-1], most)
    assert sorted(count - 1 - place for place in backward.trained) == forward.trained
    assert len(forward.trained) <= most
    assert len({plain(texts[place]) for place in forward.trained}) == len(forward.trained)


def line(answer: str, worth: float, asked: str = "why?") -> Line:
    return Line([ChatMessage("user", asked)], answer, worth, "teacher-1", "apache-2.0", 7, f"tsk_{answer}")


def test_a_response_ends_with_the_answer_and_says_where_it_comes_from():
    written = msgspec.json.decode(response(line("because", 0.9), with_worth=True))
    assert written["messages"][-1] == {"role": "assistant", "content": "because"}
    assert written["metadata"] == {
        "model": "teacher-1", "licence": "apache-2.0", "consent_ms": 7, "task": "tsk_because", "score": 0.9,
    }  # fmt: skip


def test_answers_to_one_prompt_are_preferred_where_one_is_worth_clearly_more():
    pairs = [msgspec.json.decode(one) for one in preferences(
        [line("good", 1.0), line("bad", 0.1), line("fine", 0.9), line("alone", 1.0, "who?"), line("a", 1.0, "how?"),
         line("b", 0.9, "how?")]
    )]  # fmt: skip
    assert [(one["preferred_output"][0]["content"], one["non_preferred_output"][0]["content"]) for one in pairs] == [
        ("good", "bad")
    ]
