"""What follows from what people say, whatever the order in which they say it."""

import itertools

import pytest
from collegium_contracts.envelope import Envelope
from collegium_contracts.people import (
    Expired,
    Given,
    Open,
    People,
    Proceed,
    Question,
    Refused,
    Replaced,
    numbered,
    resolve,
    stage_of,
)
from hypothesis import given
from hypothesis import strategies as st

OWN = Envelope("identity", b"", b"{}")
YES = Given("approve", "operator", "key1")
NO = Given("deny", "operator", "key2")
TEXT = Given("answer", "operator", "key3", OWN)
LATE = Given("expire", "expiry")


def asked(*on_expiry: str) -> list[Question]:
    return numbered("answer", [Question(id="", kind="answer", on_expiry=rule) for rule in on_expiry])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_", "kind"),
    [
        ({}, Open),
        ({"answer-1": YES}, Open),
        ({"answer-1": YES, "answer-2": YES}, Proceed),
        ({"answer-1": NO}, Refused),
        ({"answer-1": TEXT}, Open),
        ({"answer-1": TEXT, "answer-2": YES}, Replaced),
        ({"answer-1": TEXT, "answer-2": NO}, Refused),
        ({"answer-1": LATE}, Expired),
        ({"answer-1": YES, "answer-2": LATE}, Expired),
        ({"answer-1": TEXT, "answer-2": LATE}, Replaced),
    ],
)
def test_what_follows(given_, kind):
    assert isinstance(resolve("answer", asked("fail", "best"), given_), kind)


def test_nobody_counts_by_the_questions_own_rule():
    assert resolve("answer", asked("best"), {"answer-1": LATE}) == Expired(asked("best")[0], best=True)
    assert resolve("answer", asked("fail"), {"answer-1": LATE}) == Expired(asked("fail")[0], best=False)
    assert isinstance(resolve("answer", asked("deny"), {"answer-1": LATE}), Refused)
    # Before a task has begun there is nothing that could go on.
    assert resolve("request", asked("best"), {"answer-1": LATE}) == Expired(asked("best")[0], best=False)


@given(st.lists(st.sampled_from([YES, NO, TEXT, LATE]), min_size=3, max_size=3))
def test_a_decision_never_changes_by_what_comes_after_it(answers):
    questions = asked("fail", "best", "best")
    told = {one.id: answer for one, answer in zip(questions, answers, strict=True)}
    for order in itertools.permutations(told):
        seen = [resolve("answer", questions, {name: told[name] for name in order[:count]}) for count in range(4)]
        decided = [type(one) for one in seen if not isinstance(one, Open)]
        # A no may still come before the task has settled by the clock; nothing else is ever overturned.
        assert len({one for one in decided if one is not Expired}) <= 1
        assert not isinstance(seen[3], Open)


def test_whether_an_answer_may_be_asked_about():
    assert People(rules={"a": Question(id="x")}).at_answer
    assert not People(before=[Question(id="x")]).at_answer


@pytest.mark.parametrize(
    ("name", "stage"), [("answer-3", "answer"), ("request-1", "request"), ("x-1", None), ("", None)]
)
def test_the_stage_of_a_question(name, stage):
    assert stage_of(name) == stage
