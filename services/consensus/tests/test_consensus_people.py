"""Which verdicts wait for people, and what follows from what they say."""

from typing import Any

import pytest
from collegium_consensus.people.asking import is_unsure, questions_of
from collegium_consensus.people.outcomes import canceled, feedback_on, outcome, released
from collegium_contracts import messages as m
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.money import Price, Usage
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
)

RING = IdentityKeyring()
USAGE = Usage(input_tokens=10, output_tokens=5, cost_usd_picos=20, charge_usd_picos=50)
CALL = m.AttemptUsage(number=1, delivery=1, model="large", rank="teacher", usage=USAGE, duration_ms=3)
EXPERTS = Question(id="", kind="answer", of="operator", queue="experts", reason="unsure", price_picos=700)
AFTER = Question(id="", of="operator", queue="experts")
CLIENT = Question(id="", of="client")
NOW = 9_000


def task(people: People | None = None, **more: Any) -> m.TaskRef:
    values: dict[str, Any] = {"created_at_ms": 1_000, "deadline_ms": 3_000, "model": "auto", "people": people}
    return m.TaskRef(id="tsk_" + "0" * 26, tenant="acme", **(values | more))


def verdict(people: People | None = None, confidence: float | None = 0.6, **more: Any) -> m.TaskCompleted:
    return m.TaskCompleted(
        task=task(people, **{name: more.pop(name) for name in ("quality_min",) if name in more}),
        plan="cascade",
        stop_reason=more.pop("stop_reason", "completed"),
        usage=USAGE,
        attempts=[CALL],
        settled_at_ms=2_000,
        model="large",
        rank="teacher",
        confidence=confidence,
        output=RING.seal("acme", encode_content(Answer([Choice("green")]))),
    )


def ended(*rules: str) -> m.AttemptAnswered:
    attempt = m.AttemptRef(number=1, of=1, model="large", rank="teacher", pool="general", price=Price(), charge=Price())
    return m.AttemptAnswered(
        task=task(), attempt=attempt, answer=RING.seal("acme", b"{}"), call=CALL, at_ms=1_500, asked=list(rules)
    )


def pause(stage: Any = "answer", *questions: Question, **more: Any) -> m.InputRequired:
    asked = numbered(stage, questions or [EXPERTS])
    submitted = m.TaskSubmitted(
        task=task(**more), prompt=RING.seal("acme", b"[]"), sampling=m.Sampling(), prompt_bytes=2
    )
    about = {"submitted": submitted} if stage == "request" else {"verdict": verdict()}
    return m.InputRequired(task=task(**more), stage=stage, questions=asked, at_ms=2_000, expires_at_ms=8_000, **about)


def said(decision: Any, text: str = "") -> m.TaskInput:
    answer = RING.seal("acme", encode_content(Answer([Choice(text)]))) if text else None
    return m.TaskInput(
        tenant="acme",
        task_id=task().id,
        question="answer-1",
        decision=decision,
        source="operator",
        at_ms=5,
        answer=answer,
    )


@pytest.mark.parametrize(
    ("people", "fields", "expected"),
    [
        (None, {}, []),
        (People(after=[AFTER]), {}, ["approval"]),
        (People(unsure=EXPERTS, below=0.7), {}, ["answer"]),
        (People(unsure=EXPERTS, below=0.5), {}, []),
        (People(unsure=EXPERTS), {"quality_min": 0.7}, ["answer"]),
        (People(unsure=EXPERTS), {}, []),
        (People(unsure=EXPERTS), {"stop_reason": "no_majority"}, ["answer"]),
        (People(unsure=EXPERTS, below=0.7, after=[AFTER]), {}, ["answer"]),
        (People(unsure=EXPERTS, below=0.7, after=[CLIENT]), {}, ["answer", "approval"]),
    ],
)
def test_whom_a_verdict_asks(people, fields, expected):
    asked = questions_of(verdict(people, **fields), [ended()])
    assert [one.kind for one in asked] == expected
    assert [one.id for one in asked] == [f"answer-{number}" for number in range(1, len(asked) + 1)]


def test_a_rule_that_found_something_asks_and_another_does_not():
    people = People(rules={"names-it": CLIENT, "other": AFTER})
    assert questions_of(verdict(people), [ended("names-it"), ended("names-it")]) == numbered("answer", [CLIENT])
    assert questions_of(verdict(people), [ended()]) == []


def test_a_verdict_without_a_confidence_is_not_unsure():
    assert not is_unsure(verdict(People(unsure=EXPERTS, below=0.9), confidence=None))


def test_an_approved_task_begins_now_and_is_as_long_as_it_was_given():
    begun = released(pause("request", CLIENT, people=People(before=[CLIENT])), NOW)
    assert begun is not None
    about = begun.task
    assert (about.not_before_ms, about.deadline_ms, about.people, about.reply) == (NOW, NOW + 2_000, None, "")
    later = released(pause("request", CLIENT, not_before_ms=20_000, deadline_ms=22_000), NOW)
    assert later is not None
    assert (later.task.not_before_ms, later.task.deadline_ms) == (20_000, 22_000)
    both = released(pause("request", CLIENT, people=People(before=[CLIENT], after=[AFTER])), NOW)
    assert both is not None
    assert both.task.people == People(after=[AFTER])


def test_each_resolution_has_its_end():
    waiting, question = pause(), numbered("answer", [EXPERTS])[0]
    own = RING.seal("acme", encode_content(Answer([Choice("violet")])))
    assert outcome(waiting, Open(), NOW) is None
    agreed = outcome(waiting, Proceed(), NOW)
    assert isinstance(agreed, m.TaskCompleted)
    assert (agreed.settled_at_ms, agreed.usage.charge_usd_picos, agreed.model) == (NOW, 50, "large")
    replaced = outcome(waiting, Replaced(question, Given("answer", "operator"), own), NOW)
    assert isinstance(replaced, m.TaskCompleted)
    assert (replaced.output, replaced.model, replaced.rank) == (own, "person:experts", "person")
    assert (replaced.usage.charge_usd_picos, replaced.usage.cost_usd_picos) == (750, 20)
    assert (replaced.stop_reason, replaced.confidence) == ("answered_by_person", None)
    refused = outcome(waiting, Refused(question, Given("deny", "operator")), NOW)
    assert isinstance(refused, m.TaskFailed)
    assert (refused.stop_reason, refused.usage.charge_usd_picos, refused.usage.cost_usd_picos) == ("denied", 0, 20)
    expired = outcome(waiting, Expired(question, best=False), NOW)
    assert isinstance(expired, m.TaskFailed)
    assert (expired.stop_reason, expired.error.code) == ("expired", "input_expired")
    assert outcome(waiting, Expired(question, best=True), NOW) == agreed


def test_a_canceled_wait_is_charged_what_it_used_and_shows_what_its_client_may_see():
    clients = canceled(pause("answer", CLIENT), NOW)
    assert (clients.usage.charge_usd_picos, clients.partial is not None) == (50, True)
    assert canceled(pause("answer", CLIENT, AFTER), NOW).partial is None
    before = canceled(pause("request", CLIENT), NOW)
    assert (before.usage, before.attempts, before.partial) == (Usage(), [], None)


@pytest.mark.parametrize(
    ("given", "is_same", "score"),
    [
        (said("approve"), None, 1.0),
        (said("deny"), None, 0.0),
        (said("answer", "Green."), True, 1.0),
        (said("answer", "violet"), False, 0.0),
    ],
)
def test_what_a_person_says_is_a_word_about_the_model(given, is_same, score):
    waiting = pause()
    told = feedback_on(waiting, given, is_same=is_same)
    assert told is not None
    assert (told.source, told.score, told.model, told.rank) == ("person", score, "large", "teacher")
    # Told again it is the same word.
    assert told == feedback_on(waiting, given, is_same=is_same)


def test_the_clock_has_no_opinion():
    assert feedback_on(pause(), said("expire"), is_same=None) is None
    assert feedback_on(pause("request", CLIENT), said("approve"), is_same=None) is None
    assert feedback_on(pause(), said("answer", "x"), is_same=None) is None
