"""What requeuing a letter means, decided from the letter: where it may go, and when it becomes a new task."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_bus.letters import Letter
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import (
    AttemptRef,
    DeadLetter,
    LetterAbout,
    RunAttempt,
    Sampling,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Price
from collegium_gateway.operating.redrive import Impossible, Republish, RunAnew, decide, plan_of
from hypothesis import given
from hypothesis import strategies as st

TASK = TaskRef(
    id="tsk_" + "0" * 26, tenant="acme", created_at_ms=1_000, deadline_ms=51_000, model="auto", surface="chat",
    reply="gw1", tags={"team": "x"}, conversation="c",
)  # fmt: skip
PROMPT = Envelope("identity", b"", b'[{"role":"user","content":"hello"}]')
SUBMITTED = TaskSubmitted(task=TASK, prompt=PROMPT, sampling=Sampling(max_tokens=5), prompt_bytes=35, panel_size=5)
RUN = RunAttempt(
    task=TASK,
    attempt=AttemptRef(number=1, of=1, model="m", rank="ta", pool="general", price=Price(), charge=Price()),
    prompt=PROMPT,
    sampling=Sampling(max_tokens=5),
    prompt_bytes=900,
    history=PROMPT,
)
BEFORE, AFTER = 2_000, 60_000


def letter(service: str, stream: str, subject: str, payload: Any = b"\xff", **fields: Any) -> Letter:
    content = DeadLetter(
        service="what a letter says of itself counts for nothing",
        subject=subject,
        cause=fields.pop("cause", "undecodable_message"),
        detail="",
        payload=payload if isinstance(payload, bytes) else codec.encode(payload),
        at_ms=1,
        stream=stream,
        sequence=3,
        headers={
            s.H_TENANT: "acme", s.TRACEPARENT: "t", s.MESSAGE_ID: "old", s.EXPECTED_LAST_SUBJECT_SEQUENCE: "0",
            "Nats-Subject": "x", "Status": "1",
        },
        **fields,
    )  # fmt: skip
    return Letter(9, service, "acme", content)


def decided(of: Letter, *, settled: bool = False, now_ms: int = BEFORE) -> Any:
    assert of.content is not None
    return decide(of, of.content.payload, settled=settled, now_ms=now_ms)


@pytest.mark.parametrize(
    ("service", "stream", "subject"),
    [
        ("router", s.INGRESS, s.task_submitted("high", 3, "acme")),
        ("worker-pool", s.WORK, s.work("general", "low")),
    ],
)
def test_what_could_not_be_read_goes_back_verbatim_without_the_brokers_headers(service, stream, subject):
    back = decided(letter(service, stream, subject))
    assert isinstance(back, Republish)
    assert (back.subject, back.payload, back.message_id) == (subject, b"\xff", "requeue.9")
    assert back.headers == {s.H_TENANT: "acme", s.TRACEPARENT: "t"}


def test_an_event_goes_to_the_consumer_that_buried_it_and_once():
    subject = s.task_settled("acme", TASK.id)
    for about in (None, LetterAbout(consumer="scoreboard")):
        again = decided(letter("evolution", s.EVENTS, subject, about=about))
        assert (again.subject, again.create_once) == (s.again("scoreboard", 9, subject), True)
    assert isinstance(
        decided(letter("evolution", s.EVENTS, subject, about=LetterAbout(consumer="billing"))), Impossible
    )


@pytest.mark.parametrize(
    ("service", "stream", "subject"),
    [
        ("evolution", s.INGRESS, s.task_submitted("high", 3, "acme")),
        ("evolution", s.WORK, s.work("general", "low")),
        ("router", s.WORK, s.work("general", "low")),
        ("router", s.EVENTS, s.task_settled("acme", TASK.id)),
        ("router", s.INGRESS, "$KV.tenants.acme"),
        ("router", s.INGRESS, "task.settled.high.3.acme"),
        ("router", s.INGRESS, "task.submitted.high.3.*"),
        ("router", s.INGRESS, "task.submitted.high..acme"),
        ("worker-pool", s.WORK, "work.general.>"),
        ("worker-pool", s.WORK, "work.general"),
        ("worker-pool", s.WORK, "dead.billing.acme"),
        ("worker-pool", s.ADVISORIES, "work.general.low"),
        ("worker-pool", "", "work.general.low"),
        ("billing", s.EVENTS, "$JS.API.STREAM.DELETE.EVENTS"),
        ("billing", s.EVENTS, "task.settled.acme.a b"),
        ("billing", s.EVENTS, "task.settled.*.>"),
    ],
)
def test_nothing_goes_where_the_writer_of_its_letter_does_not_read(service, stream, subject):
    assert isinstance(decided(letter(service, stream, subject)), Impossible)


@given(st.sampled_from(["router", "billing", "worker-pool"]), st.sampled_from([s.INGRESS, s.WORK, s.EVENTS]), st.text())
def test_no_subject_that_a_letter_invents_is_published_to(service, stream, subject):
    outcome = decided(letter(service, stream, subject))
    allowed = ("task.submitted.", "work.", "again.billing.9.")
    assert isinstance(outcome, Impossible) or outcome.subject.startswith(allowed)


@pytest.mark.parametrize("original", [SUBMITTED, RUN], ids=["submitted", "run"])
@pytest.mark.parametrize("service", ["router", "worker-pool", "consensus"])
def test_a_failed_task_becomes_one_new_task_from_the_same_input(service, original):
    first = decided(letter(service, "", "x", original, cause="task_failed"), now_ms=AFTER)
    assert isinstance(first, RunAnew)
    task = first.submitted.task
    assert (task.id, first.retry_of) == (ids.retry_id("acme", TASK.id), TASK.id)
    assert (task.created_at_ms, task.deadline_ms) == (AFTER, AFTER + 50_000)
    assert (task.reply, task.surface, task.conversation) == ("", "tasks", "c")
    assert task.tags == {"team": "x", "retry_of": TASK.id}
    assert (first.submitted.prompt, first.submitted.prompt_bytes) == (PROMPT, 35)
    assert first.submitted.panel_size == (5 if original is SUBMITTED else 3)
    other = Letter(10, service, "acme", letter(service, "", "x", original, cause="task_failed").content)
    assert decide(other, codec.encode(original), settled=True, now_ms=AFTER) == first


@pytest.mark.parametrize("original", [SUBMITTED, RUN], ids=["submitted", "run"])
def test_a_task_that_waited_for_its_time_or_for_people_is_as_long_as_it_was_given(original):
    begun = msgspec.structs.replace(TASK, not_before_ms=86_400_000, deadline_ms=86_450_000)
    waited = msgspec.structs.replace(original, task=begun)
    again = decided(letter("router", "", "x", waited, cause="task_failed"), now_ms=90_000_000)
    assert isinstance(again, RunAnew)
    task = again.submitted.task
    assert (task.not_before_ms, task.deadline_ms) == (0, 90_050_000)


@pytest.mark.parametrize(
    "forged",
    [
        letter("evolution", "", "x", SUBMITTED, cause="task_failed"),
        Letter(9, "router", "globex", letter("router", "", "x", SUBMITTED, cause="task_failed").content),
        letter("router", "", "x", b"\xff", cause="task_failed"),
    ],
    ids=["no settler", "another tenant", "no input"],
)
def test_no_task_is_made_from_what_nobody_may_speak_for(forged):
    assert isinstance(decided(forged), Impossible)


def test_work_goes_back_while_its_task_may_still_end_and_becomes_a_new_task_after():
    buried = letter("worker-pool", s.WORK, s.work("general", "low"), RUN, cause="handler_failed")
    assert isinstance(decided(buried), Republish)
    assert isinstance(decided(buried, settled=True), RunAnew)
    assert isinstance(decided(buried, now_ms=TASK.deadline_ms), RunAnew)


JUDGE = msgspec.structs.replace(RUN.attempt, number=4, of=3, plan="panel", judges=True)


@pytest.mark.parametrize(
    ("task", "attempt"),
    [
        (msgspec.structs.replace(TASK, tests=2), RUN.attempt),
        (msgspec.structs.replace(TASK, plan="panel"), msgspec.structs.replace(RUN.attempt, of=3, plan="panel")),
        (TASK, JUDGE),
    ],
    ids=["tests", "panel", "judge"],
)
def test_an_attempt_of_a_plan_becomes_what_the_plan_began_with(task, attempt):
    run = msgspec.structs.replace(RUN, task=task, attempt=attempt)
    tests = PROMPT if task.tests else None
    begun = msgspec.structs.replace(SUBMITTED, task=task, tests=tests, judge="pairwise", panel_size=3)
    buried = letter("worker-pool", s.WORK, s.work("general", "low"), run, cause="handler_failed")
    assert buried.content is not None
    original = buried.content.payload
    assert plan_of(buried, original) == task
    again = decide(buried, original, settled=True, now_ms=AFTER, begun=begun)
    assert isinstance(again, RunAnew)
    assert again.submitted == msgspec.structs.replace(begun, task=again.submitted.task)
    assert (again.submitted.task.id, again.submitted.task.tests) == (ids.retry_id("acme", TASK.id), task.tests)
    other = msgspec.structs.replace(begun, task=msgspec.structs.replace(task, id="tsk_" + "1" * 26))
    for found in (None, other):
        alone = decide(buried, original, settled=True, now_ms=AFTER, begun=found)
        if task.tests or attempt.judges:
            assert isinstance(alone, Impossible)
            assert "submit it again" in alone.reason
        else:
            assert isinstance(alone, RunAnew)
            assert (alone.submitted.prompt, alone.submitted.panel_size) == (PROMPT, 3)


def test_nobodys_plan_is_looked_for_but_that_of_an_attempt_of_several():
    assert plan_of(letter("worker-pool", s.WORK, "x", RUN), codec.encode(RUN)) is None
    assert plan_of(letter("router", s.INGRESS, "x", SUBMITTED), codec.encode(SUBMITTED)) is None
    panel = msgspec.structs.replace(RUN, attempt=JUDGE)
    assert plan_of(letter("evolution", s.WORK, "x", panel), codec.encode(panel)) is None


def test_a_letter_that_cannot_be_read_says_so():
    outcome = decide(Letter(9, "router", "", None, "odd bytes"), b"", settled=False, now_ms=BEFORE)
    assert isinstance(outcome, Impossible)
    assert "odd bytes" in outcome.reason
