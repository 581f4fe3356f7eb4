"""Passing messages as lines: masked, filtered, and honest about bytes that are no message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_cli.tasks.passing import Passing, Taste, is_filter, line, overlaps, without
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.experiments import INSTRUCTION_PURPOSE
from collegium_contracts.messages import (
    AttemptRef,
    DeadLetter,
    Message,
    RunAttempt,
    Sampling,
    TaskRef,
    TaskSubmitted,
    TokenChunk,
)
from collegium_contracts.money import Price
from collegium_contracts.requests import KeyCreate

SECRET = b'[{"role":"user","content":"my private question"}]'
TASK = TaskRef(id="tsk_1", tenant="acme", created_at_ms=1, deadline_ms=2, model="auto")
PROMPT = Envelope("identity", b"", SECRET)
SUBMITTED = codec.encode(TaskSubmitted(task=TASK, prompt=PROMPT, sampling=Sampling(), prompt_bytes=len(SECRET)))
ATTEMPT = AttemptRef(number=1, of=1, model="m", rank="ta", pool="general", price=Price(), charge=Price())
RUN = codec.encode(RunAttempt(task=TASK, attempt=ATTEMPT, prompt=PROMPT, sampling=Sampling(), prompt_bytes=len(SECRET)))
SUBMITTED_SUBJECT = s.task_submitted("normal", 3, "acme")
WORK_SUBJECT = s.work("general", "normal")
SUBMIT = Passing(SUBMITTED_SUBJECT, SUBMITTED)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_contents_are_masked_unless_asked_for(raw: bool, as_json: bool) -> None:
    masked = line(SUBMIT, Taste(raw=raw, as_json=as_json))
    assert masked is not None
    assert "private" not in masked
    assert f"sealed, {len(SECRET)} bytes" in masked
    shown = line(SUBMIT, Taste(raw=raw, as_json=as_json, content=True))
    assert shown is not None
    assert "private" in shown


def test_raw_bytes_are_those_that_came_but_for_the_sealed_ones() -> None:
    shown = line(SUBMIT, Taste(raw=True, content=True))
    assert shown == f"{SUBMITTED_SUBJECT} {SUBMITTED!r}"


def sealed_by_key(plain: bytes, purpose: str = "") -> Envelope:
    return Envelope("dk1.salt", purpose.encode(), b"\xff" + plain)


def open_with_key(tenant: str, envelope: Envelope, purpose: str) -> bytes | str:
    """Opens what :func:`sealed_by_key` sealed for acme."""
    if tenant != "acme":
        return f"tenant {tenant} was erased"
    return envelope.body[1:] if envelope.nonce == purpose.encode() else "it belongs elsewhere, or was altered"


def shown_by_key(message: Message, subject: str = SUBMITTED_SUBJECT) -> dict[str, Any]:
    shown = line(Passing(subject, codec.encode(message)), Taste(content=True, as_json=True), open_with_key)
    assert shown is not None
    return msgspec.json.decode(shown)["message"]


def test_sealed_contents_are_opened_and_stand_as_what_they_are() -> None:
    words = msgspec.msgpack.encode({"stop": ["Amen"], "tools": b"[1]"})
    submitted = TaskSubmitted(
        task=TASK,
        prompt=sealed_by_key(SECRET),
        sampling=Sampling(words=sealed_by_key(words), words_bytes=len(words)),
        prompt_bytes=len(SECRET),
    )
    shown = shown_by_key(submitted)
    assert shown["prompt"] == [{"role": "user", "content": "my private question"}]
    assert shown["sampling"]["words"] == {"stop": ["Amen"], "tools": "[1]"}
    run = RunAttempt(
        task=TASK,
        attempt=ATTEMPT,
        prompt=sealed_by_key(SECRET),
        sampling=Sampling(),
        prompt_bytes=1,
        instruction=sealed_by_key(b"Be brief.", INSTRUCTION_PURPOSE),
        notes=[sealed_by_key(b"a note"), sealed_by_key(b"\xfe\xfe")],
    )
    shown = shown_by_key(run, WORK_SUBJECT)
    assert shown["instruction"] == "Be brief."
    assert shown["notes"] == ["a note", "‹2 bytes that are no text›"]


def test_a_piece_of_a_stream_is_opened_with_the_key_of_the_tenant_in_its_subject() -> None:
    chunk = TokenChunk(task_id="tsk_1", attempt=1, delivery=1, number=0, text=sealed_by_key(b"[1, 2"))
    assert shown_by_key(chunk, s.token("acme", "tsk_1"))["text"] == "[1, 2"
    looks_like_json = msgspec.structs.replace(chunk, text=sealed_by_key(b"[1]"))
    assert shown_by_key(looks_like_json, s.token("acme", "tsk_1"))["text"] == "[1]"
    assert shown_by_key(chunk, s.token("globex", "tsk_1"))["text"] == "‹sealed, 6 bytes: tenant globex was erased›"


def test_what_cannot_be_opened_says_why() -> None:
    strange = msgspec.structs.replace(TASK, tenant="globex")
    submitted = TaskSubmitted(task=strange, prompt=sealed_by_key(b"12"), sampling=Sampling(), prompt_bytes=2)
    assert shown_by_key(submitted)["prompt"] == "‹sealed, 3 bytes: tenant globex was erased›"
    shown = line(Passing(SUBMITTED_SUBJECT, codec.encode(submitted)), Taste(content=True))
    assert shown is not None
    assert "its key is not at hand" in shown


def test_a_dead_letters_original_is_opened_where_it_is_a_message() -> None:
    run = RunAttempt(task=TASK, attempt=ATTEMPT, prompt=sealed_by_key(SECRET), sampling=Sampling(), prompt_bytes=1)
    letter = DeadLetter(
        service="worker-pool", subject=WORK_SUBJECT, cause="x", detail="", payload=codec.encode(run), at_ms=1
    )
    shown = shown_by_key(letter, s.dead("worker-pool", "acme"))
    assert shown["payload"]["prompt"][0]["content"] == "my private question"


def test_a_dead_letters_original_bytes_are_masked_like_contents() -> None:
    letter = DeadLetter(service="router", subject="x", cause="undecodable", detail="", payload=SECRET, at_ms=1)
    passing = Passing(s.dead("router", "acme"), codec.encode(letter))
    for taste in (Taste(), Taste(raw=True)):
        shown = line(passing, taste)
        assert shown is not None
        assert "private" not in shown


def test_undecodable_bytes_are_shown_as_such() -> None:
    shown = line(Passing(WORK_SUBJECT, b"\xff\x00nonsense"), Taste())
    assert shown is not None
    assert "undecodable" in shown
    assert r"\xff\x00nonsense" in shown


def test_tenant_and_task_are_read_from_the_message_where_the_subject_has_none() -> None:
    passing = Passing(WORK_SUBJECT, RUN)
    assert line(passing, Taste(tenant="acme", task="tsk_1")) is not None
    assert line(passing, Taste(tenant="globex")) is None
    assert line(passing, Taste(task="tsk_2")) is None


def test_a_tenant_that_is_called_like_a_part_of_a_subject_is_not_mixed_up_with_it() -> None:
    assert line(SUBMIT, Taste(tenant="normal")) is None
    assert line(Passing(WORK_SUBJECT, RUN), Taste(tenant="general")) is None


def test_undecodable_bytes_belong_to_the_tenant_in_their_subject() -> None:
    passing = Passing(s.task_settled("acme", "tsk_1"), b"nonsense")
    assert line(passing, Taste(tenant="acme")) is not None
    assert line(passing, Taste(tenant="globex")) is None


def test_a_delivery_to_a_consumer_is_not_shown_again() -> None:
    delivered = Passing(SUBMITTED_SUBJECT, SUBMITTED, reply=b"$JS.ACK.INGRESS.x.1.1.1.1.0")
    assert line(delivered, Taste()) is None


def test_questions_between_services_are_decoded() -> None:
    question = codec.encode(KeyCreate(tenant="acme", scopes=["chat"]))
    shown = line(Passing(s.SVC_BILLING_KEY_CREATE, question), Taste(as_json=True))
    assert shown is not None
    assert msgspec.json.decode(shown)["message"]["type"] == "KeyCreate"


def test_replies_are_shown_by_their_size_because_one_may_hold_a_new_key() -> None:
    reply = Passing("_INBOX.gateway.1.r.5", b"sk-clg-abcdefgh-" + b"s" * 48)
    for taste in (Taste(), Taste(raw=True), Taste(content=True), Taste(as_json=True)):
        shown = line(reply, taste)
        assert shown is not None
        assert "ssss" not in shown


def test_a_claimed_payload_is_named_not_called_undecodable() -> None:
    shown = line(Passing(s.task_settled("acme", "tsk_1"), b"", claim="c1:300000:abc"), Taste())
    assert shown == f"{s.task_settled('acme', 'tsk_1')} in the object store: c1:300000:abc"


def test_what_was_read_from_streams_is_not_shown_again_as_it_passes() -> None:
    first, twin, other = Passing("a", b"1"), Passing("a", b"1", reply=b"x"), Passing("a", b"2")
    assert list(without([twin, twin, other], [first])) == [twin, other]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("task.settled.>", "task.settled.acme.tsk", True),
        (">", "work.general.normal", True),
        ("task.*.acme.*", "task.settled.>", True),
        ("attempt.*.*.*.ended", "attempt.>", True),
        ("task.settled.>", "task.changed.>", False),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.*", False),
    ],
)
def test_filters_overlap_where_one_subject_can_match_both(one: str, other: str, expected: bool) -> None:
    assert overlaps(one, other) is expected
    assert overlaps(other, one) is expected


@pytest.mark.parametrize(
    ("text", "good"), [("task.>", True), (">", True), ("a.*.b", True), ("a b", False), ("a..b", False), (">.a", False)]
)
def test_only_filters_are_taken_as_filters(text: str, good: bool) -> None:
    assert is_filter(text) is good
