"""What the semantic cache tells apart, and how sure it must be: the pure rooms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from collegium_context.semantic.answers import are_same
from collegium_context.semantic.cacheable import not_cached
from collegium_context.semantic.features import Neighbour, compare
from collegium_context.semantic.policy import Candidate, Evidence, Limits, decide, is_crowd, weigh
from collegium_context.semantic.replay import Asked, Replay
from collegium_context.semantic.risk import fit, interval, marks_of, threshold, upper_bound
from collegium_context.semantic.shipped import shipped
from collegium_context.semantic.turns import Turn, question_of
from collegium_context.semantic.veto import vetoes
from collegium_context.semantic.words import read


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("Take 2 pills every 4 hours", "Take 2 pills every 8 hours", "number"),
        ("Ring the bell at 7am", "Ring the bell at 7pm", "number"),
        ("Which birds can fly?", "Which birds can't fly?", "negation"),
        ("Is the shop open on Monday?", "Is the shop open on Friday?", "date"),
        ("Is a fee due before the exam?", "Is a fee due after the exam?", "direction"),
        ("How cold is it in Norway?", "How cold is it in Sweden?", "name"),
        ("How to move data from Redis to Kafka", "How to move data from Kafka to Redis", "order"),
        ('What does "foo" mean?', 'What does "bar" mean?', "quoted"),
        ("What does parse_int do?", "What does parse_float do?", "code"),
        ("How do I lock a screen?", "How do I unlock a screen?", "opposite"),
        ("How do I import a file?", "How do I export a file?", "opposite"),
    ],
)
def test_what_no_rewording_changes_is_a_veto(a: str, b: str, why: str):
    assert why in vetoes(read(a), read(b))
    assert why in vetoes(read(b), read(a))
    assert not vetoes(read(a), read(a.lower() + " please"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How do I bake bread?", "How can I bake bread please?"),
        ("In winter, how do I bake bread?", "How do I bake bread in winter?"),
        ("What's the price of a ticket", "What is the cost of a ticket?"),
        ("How do I recieve parcels", "How do I receive parcels"),
    ],
)
def test_a_rewording_is_none(a: str, b: str):
    assert not vetoes(read(a), read(b))


def test_turns_of_before_are_compared_in_their_order():
    offer = [read("First the red door, second the blue door."), read("The second one")]
    other = [read("First the blue door, second the red door."), read("The second one")]
    assert "order" in compare(offer, other, [0.99, 1.0]).vetoes
    assert not compare(offer, offer, [1.0, 1.0]).vetoes
    red, boat = ([read(said), read("How is it painted?")] for said in ("It is red.", "It is a boat."))
    assert "context" in compare(red, boat, [0.7, 1.0]).vetoes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("What is my balance?", "personal"),
        ("What's the weather in Rome?", "time"),
        ("Who is the current president?", "time"),
        ("What happened today?", "time"),
        ("What is the capital of France?", None),
    ],
)
def test_questions_about_a_person_or_the_present_are_not_cached(text: str, reason: str | None):
    assert not_cached([Turn("user", text)]) == reason
    assert not_cached([Turn("user", text), Turn("assistant", "Yes"), Turn("user", "Go on")]) == reason


def messages(*turns: tuple[str, Any]) -> bytes:
    return json.dumps([{"role": role, "content": content} for role, content in turns]).encode()


def test_the_whole_conversation_is_the_question():
    one = question_of(messages(("system", "Be brief"), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Why?")))
    assert one is not None
    assert [turn.text for turn in one.turns] == ["Hi", "Yes?", "Why?"]
    other = question_of(messages(("system", "Be long"), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Why?")))
    assert other is not None
    assert one.turns == other.turns
    assert one.setting != other.setting


@pytest.mark.parametrize(
    "body",
    [
        messages(("user", [{"type": "image_url", "image_url": {"url": "x"}}])),
        messages(("user", "Hi"), ("assistant", "Yes")),
        messages(("tool", "42"), ("user", "Why?")),
        messages(("user", "x" * 2_000)),
        json.dumps([{"role": "user", "content": "Hi", "name": "Ann"}]).encode(),
    ],
)
def test_what_is_not_compared_by_words_is_no_question(body: bytes):
    assert question_of(body) is None


@pytest.mark.parametrize(
    ("wrong", "trials", "bound"), [(0, 149, 0.019905), (3, 500, 0.015434), (20, 1000, 0.028930), (0, 1, 0.95)]
)
def test_bounds_are_those_of_clopper_and_pearson(wrong: int, trials: int, bound: float):
    assert upper_bound(wrong, trials) == pytest.approx(bound, abs=1e-5)
    assert interval(50, 60) == pytest.approx((0.714781, 0.917109), abs=1e-4)


def test_a_threshold_keeps_its_bound_on_rows_it_never_saw():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(40):
        rows = rng.uniform(size=(4_000, 2))
        wrong = (rng.uniform(size=4_000) < rows[:, 0] ** 3).astype(float)
        model = fit(rows[:1000], wrong[:1000])
        limit = threshold(marks_of(model.risks(rows[1000:2500]), wrong[1000:2500]), 0.05)
        served = model.risks(rows[2500:]) <= limit
        held += bool(served.sum() and (rows[2500:, 0] ** 3)[served].mean() <= 0.05)
    assert held >= 38


def test_no_feature_that_rises_lowers_the_risk():
    rng = np.random.default_rng(5)
    rows = rng.uniform(size=(500, 3))
    model = fit(rows, (rows[:, 0] - rows[:, 1] > 0).astype(float))
    assert min(model.weights) >= 0
    assert model.weights[1] == 0
    assert all(min(one.weights) >= 0 for one in (shipped().alone, shipped().among))


def alike(cosine: float = 0.99) -> Any:
    return compare([read("How do I bake bread?")], [read("How can I bake bread?")], [cosine])


def test_an_entry_that_was_wrong_is_trusted_less_and_no_evidence_makes_it_bolder():
    limits = Limits(alone=0.12, among=0.05)

    def weighed(entry: Evidence, scope: Evidence | None = None) -> Candidate:
        candidate = weigh(shipped(), limits, alike(), [], entry, scope or Evidence())
        assert candidate is not None
        return candidate

    plain = weighed(Evidence())
    assert plain.fits
    bad = Evidence().seen(plain.risk, is_wrong=True)
    assert not weighed(bad).fits
    good = Evidence()
    for _ in range(50):
        good = good.seen(plain.risk, is_wrong=False)
    assert weighed(good).adjusted == plain.adjusted
    shaken = Evidence()
    for _ in range(30):
        shaken = shaken.seen(plain.risk, is_wrong=True)
    assert not weighed(Evidence(), shaken).fits
    assert (decide(plain, 0.5), decide(plain, 0.001), decide(weighed(bad), 0.5)) == ("serve", "explore", "call")


def test_a_veto_is_never_outweighed():
    compared = compare([read("Take 2 pills")], [read("Take 3 pills")], [1.0])
    assert weigh(shipped(), Limits(1.0, 1.0), compared, [], Evidence(), Evidence()) is None


def test_limits_follow_what_is_promised():
    loose, strict = Limits.of(shipped(), 0.05), Limits.of(shipped(), 0.01)
    assert loose.among >= strict.among > 0
    assert loose.alone >= strict.alone > 0
    assert Limits.of(shipped(), 0.0) == Limits(0.0, 0.0)


def test_a_lone_neighbour_is_no_crowd():
    crowd = [Neighbour(0.9 - number / 100, number % 3) for number in range(10)]
    assert is_crowd(crowd)
    assert not is_crowd([Neighbour(0.95, 99), *crowd])
    assert not is_crowd(crowd[:4])


def test_answers_are_the_same_by_text_or_by_sense_but_not_with_other_numbers():
    near, far = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert are_same("Paris.", " paris", near, far)
    assert are_same("It is Paris.", "That is Paris.", near, near)
    assert not are_same("It is Paris.", "It is Rome.", near, far)
    assert not are_same("It costs 5 euros.", "It costs 6 euros.", near, near)
    assert not are_same("It is allowed.", "It is not allowed.", near, near)


def test_a_served_rows_label_reaches_no_decision():
    rng = np.random.default_rng(1)
    rows = []
    for number in range(200):
        vector = np.eye(8, dtype=np.float32)[number % 4] + rng.normal(scale=0.05, size=8).astype(np.float32)
        rows.append(Asked(read(f"word{'abcd'[number % 4]} thing"), vector / np.linalg.norm(vector), number % 4))

    def served(lying: bool) -> list[bool]:
        cache = Replay(8, shipped(), Limits(0.2, 0.2, 0.2), np.random.default_rng(2), clock=lambda: 0.0)
        outcomes = [cache.ask(row) for row in rows]
        first = [one.served for one in outcomes]
        if not lying:
            return first
        again = Replay(8, shipped(), Limits(0.2, 0.2, 0.2), np.random.default_rng(2), clock=lambda: 0.0)
        lies = [row._replace(answer="lie") if was else row for row, was in zip(rows, first, strict=True)]
        return [again.ask(row).served for row in lies]

    assert any(served(lying=False))
    assert served(lying=False) == served(lying=True)
