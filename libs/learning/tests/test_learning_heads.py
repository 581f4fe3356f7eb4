"""Heads: learned on texts of two kinds, what they say and how sure, and what is no head."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from collegium_learning.heads import fitting
from collegium_learning.heads import head as head_module
from collegium_learning.heads.applying import Classifier, likeness_of
from collegium_learning.heads.features import counted
from collegium_learning.heads.fitting import fit
from collegium_learning.heads.head import BYTES_MAX, Head, HeadError, digest_of, middles_that_fit, pack, unpack

KINDS = {
    "refund": ["please refund my order", "i want my money back", "give the money back now", "a refund for this"],
    "delivery": ["where is my parcel", "the parcel did not arrive", "track my delivery", "when will it be delivered"],
    "login": ["i cannot log in", "my password is wrong", "reset the password please", "the login page is broken"],
}
STRANGE = ["how tall is the tower", "what does a cat eat", "sing me a song", "who painted this", "is it raining"]
DIMENSIONS = 16


def vector_of(text: str) -> np.ndarray:
    """A vector by the text's words, so that texts of the same words are near each other."""
    total = np.zeros(DIMENSIONS, np.float32)
    for word in text.split():
        total += np.random.default_rng(sum(word.encode()) % 9_973).normal(size=DIMENSIONS).astype(np.float32)
    return total / np.float32(np.linalg.norm(total))


def examples(strange: list[str] | None = None) -> tuple[list[str], np.ndarray, list[str]]:
    rows = [(f"{text} {tail}", kind) for kind, texts in KINDS.items() for text in texts
            for tail in ("", "today", "thanks", "for me", "again")]  # fmt: skip
    rows += [(text, "oos") for text in strange or ()]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    return texts, np.stack([vector_of(text) for text in texts]), labels


@pytest.fixture(scope="module")
def head() -> Head:
    texts, vectors, labels = examples(STRANGE)
    return fit(texts, vectors, labels, embedder="words", seed=1, out_of_scope="oos")


def test_a_head_names_the_kind_of_texts_it_never_saw(head: Head) -> None:
    asked = {"refund": "my order refund please", "delivery": "did the parcel arrive", "login": "password reset"}
    serving = Classifier(head)
    for kind, text in asked.items():
        told = serving.tell(text, vector_of(text))
        assert told.best == kind
        assert 0.0 < told.confidence <= 1.0


def test_what_is_none_of_its_kinds_is_said_to_be_none(head: Head) -> None:
    told = Classifier(head).tell("when did the emperor die", vector_of("when did the emperor die"))
    assert (told.label, told.is_in_scope) == ("oos", False)


def test_what_is_near_no_label_is_less_familiar(head: Head) -> None:
    text = "please refund my order"
    serving = Classifier(head)
    assert serving.tell(text, vector_of(text)).is_in_scope
    assert not serving.tell(text, -vector_of(text)).is_in_scope
    assert likeness_of(np.eye(2, dtype=np.float32), np.array([3.0, 4.0])) == pytest.approx(0.8)
    assert likeness_of(np.zeros((0, 2), np.float32), np.array([3.0, 4.0])) == 0


def test_a_head_from_before_there_were_middles_goes_by_its_strongest_logit(head: Head) -> None:
    old = msgspec.structs.replace(head, version=1, middles=b"", scope_weight=0.0, scope_logit=-100.0)
    assert Classifier(unpack(pack(old))).tell("zzz", -vector_of("refund")).is_in_scope


@pytest.mark.parametrize(
    ("labels", "dimensions", "texts", "most"),
    [(1_000, 384, 10, 4), (1_000, 1_024, 10, 2), (1_000, 1_024, 2, 4), (1_000, 2_048, 10, 1), (1_000, 4_096, 10, 0)],
)
def test_a_head_has_as_many_middles_as_fit(labels: int, dimensions: int, texts: int, most: int) -> None:
    words, letters = fitting.WORD_SLOTS, fitting.LETTER_SLOTS
    bare = Head(
        version=2, labels=[f"label {place}" for place in range(labels)], embedder="e", dimensions=dimensions,
        word_rarity=b"", letter_rarity=b"", weights=b"", biases=b"",
    )  # fmt: skip
    assert middles_that_fit(bare, words + letters, [texts] * labels) == most
    whole = msgspec.structs.replace(
        bare,
        word_rarity=bytes(2 * words),
        letter_rarity=bytes(2 * letters),
        weights=bytes(2 * (dimensions + words + letters) * labels),
        biases=bytes(4 * labels),
        middles=bytes(2 * dimensions * labels * min(most, texts)),
    )
    assert len(pack(whole)) <= BYTES_MAX


def test_a_head_with_less_room_has_fewer_middles_and_one_with_too_little_is_not_fitted(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, vectors, labels = examples(STRANGE)
    a_middle = 2 * DIMENSIONS * len(KINDS)
    room = len(pack(head)) - 4 * a_middle + 64
    for most, spare in ((1, a_middle), (0, 0)):
        monkeypatch.setattr(head_module, "BYTES_MAX", room + spare)
        fitted = fit(texts, vectors, labels, embedder="words", seed=1, out_of_scope="oos")
        assert len(fitted.middles) == most * a_middle
        assert fitted.version == 1 + most
        assert len(pack(fitted)) <= room + spare
        assert Classifier(fitted).tell("refund my order", vector_of("refund my order")).label == "refund"
    monkeypatch.setattr(head_module, "BYTES_MAX", room - 200)
    monkeypatch.setattr(fitting, "_minimise", None)
    with pytest.raises(HeadError, match="too many labels"):
        fit(texts, vectors, labels, embedder="words", seed=1, out_of_scope="oos")


def test_without_examples_of_strangers_a_head_has_no_label_for_them() -> None:
    texts, vectors, labels = examples()
    serving = Classifier(fit(texts, vectors, labels, embedder="words", seed=1, out_of_scope="oos"))
    told = serving.tell("zzz", -vector_of("refund"))
    assert serving.head.out_of_scope == ""
    assert told.label in ("", told.best)


def test_a_head_is_the_same_after_its_journey_and_known_by_its_digest(head: Head) -> None:
    content = pack(head)
    text = "where is the parcel"
    before, after = (Classifier(one).tell(text, vector_of(text)) for one in (head, unpack(content)))
    assert before == after
    assert digest_of(content) == digest_of(pack(unpack(content)))


def test_fitting_again_gives_the_same_head(head: Head) -> None:
    texts, vectors, labels = examples(STRANGE)
    again = fit(texts, vectors, labels, embedder="words", seed=1, out_of_scope="oos")
    assert again.labels == head.labels
    assert np.allclose(np.frombuffer(again.biases, "<f4"), np.frombuffer(head.biases, "<f4"), atol=1e-2)


def test_no_word_of_anybody_stands_in_a_head(head: Head) -> None:
    content = pack(head)
    assert not any(word.encode() in content for word in ("password", "broken", "parcel"))


@pytest.mark.parametrize(
    "harm",
    [
        {"weights": b"\x00" * 7},
        {"weights": b"\x00" * 8},
        {"biases": np.array([np.nan, 1, 2], "<f4").tobytes()},
        {"labels": ["a", "a", "b"]},
        {"labels": ["a"]},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"dimensions": 0},
        {"version": 3},
        {"middles": b"\x00" * 3},
        {"middles": b"\x00" * 2 * (DIMENSIONS + 1)},
        {"middles": b"\x00" * 2 * DIMENSIONS * 13},
        {"scope_weight": float("inf")},
        {"word_rarity": b""},
    ],
)
def test_what_does_not_fit_together_is_refused(head: Head, harm: dict[str, object]) -> None:
    broken = msgspec.msgpack.encode(msgspec.structs.replace(head, **harm))
    with pytest.raises(HeadError):
        unpack(broken)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"not a head", msgspec.msgpack.encode({"labels": []})])
def test_other_bytes_are_no_head(content: bytes) -> None:
    with pytest.raises(HeadError):
        unpack(content)


def test_a_vector_of_another_length_is_refused(head: Head) -> None:
    with pytest.raises(HeadError, match="fitted on 16"):
        Classifier(head).tell("refund", np.ones(DIMENSIONS + 1, np.float32))


@pytest.mark.parametrize("labels", [["a"] * 20, ["a", "b"], [f"l{n}" for n in range(20)]])
def test_too_few_examples_make_no_head(labels: list[str]) -> None:
    texts = [f"text {number}" for number in range(len(labels))]
    with pytest.raises(HeadError, match="two labels"):
        fit(texts, np.ones((len(labels), 4)), labels, embedder="e", seed=1)


def test_slots_are_the_same_everywhere_and_empty_text_has_none() -> None:
    assert counted("", 64, 64) == ({}, {})
    words, _ = counted("Refund REFUND refund", 4096, 64)
    assert max(words.values()) == 3
    assert words == {1112: 3, 3810: 2}
