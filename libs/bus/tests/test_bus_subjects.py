"""What is no subject is never written to the wire: nothing is injected, nothing is cut, nobody else's is heard."""

from __future__ import annotations

import pytest
from collegium_bus.errors import InvalidSubjectError
from collegium_bus.wire import SUBJECT_CHARS_MAX, check_filter, check_subject
from collegium_contracts import subjects as s
from collegium_testing import eventually
from hypothesis import given
from hypothesis import strategies as st

INJECTED = "audit.zz 12 12\r\nNATS/1.0\r\n\r\n\r\nPUB audit.globex 5\r\nhello\r\nPUB audit.zz"
NONE = (
    "", " ", ".", "a.", ".a", "a..b", "audit.x y", "audit.x\ty", "a\r\nb", "a\n", "\r\na", "a\x00b", "a\x7f", "a\x85b",
    "a\u2028b", "a\u3000b", "a\xa0b", "audit.../../etc/passwd", "a\ud800", "x" * (SUBJECT_CHARS_MAX + 1), INJECTED,
)  # fmt: skip
FILTERS = ("*", ">", "a.*", "a.>", "a.*.b", "$KV.models.>", "_INBOX.gateway.0a1b.r.*")
SUBJECTS = (
    "a", s.audit("acme"), s.audit("_platform"), "$JS.API.STREAM.INFO.WORK", "$JS.ACK.WORK.x.1.2.3.4.0",
    "_INBOX.gateway.0a1b.r.17", "$KV.models.m:1/x@2=3", "a.é", "x" * SUBJECT_CHARS_MAX,
)  # fmt: skip


@pytest.mark.parametrize("subject", NONE)
async def test_what_is_no_subject_is_sent_nowhere(bus, subject):
    heard: list[bytes] = []
    bus.connection.client.subscribe_raw("audit.>", lambda subject, *_: heard.append(subject))
    written: list[bytes] = []
    send = bus.connection.client.send
    bus.connection.client.send = lambda command: (written.append(command), send(command))
    with pytest.raises(InvalidSubjectError):
        bus.connection.publish(subject, b"x")
    with pytest.raises(InvalidSubjectError):
        await bus.connection.request_raw(subject, b"x")
    with pytest.raises(InvalidSubjectError):
        await bus.publisher.publish(subject, b"x", message_id="one")
    with pytest.raises(InvalidSubjectError):
        bus.connection.client.subscribe_raw(subject, lambda *_: None)
    bus.publisher.tell(subject, b"x", headers={"k": "v"})
    if subject:
        with pytest.raises(InvalidSubjectError):
            bus.connection.publish("audit.acme", b"x", reply=subject)
        with pytest.raises(InvalidSubjectError):
            bus.connection.client.subscribe_raw("a", lambda *_: None, subject)
    assert written == []
    bus.connection.publish("audit.acme", b"x")
    await eventually(lambda: heard == [b"audit.acme"])
    assert bus.connection.is_connected


@pytest.mark.parametrize("subject", FILTERS)
async def test_a_filter_is_subscribed_to_and_never_published_to(bus, subject):
    check_filter(subject)
    for refused in (subject, f"audit.{subject}"):
        with pytest.raises(InvalidSubjectError):
            bus.connection.publish(refused, b"x")
        with pytest.raises(InvalidSubjectError):
            bus.connection.publish("audit.acme", b"x", reply=refused)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_the_platform_speaks_of_is_a_subject(subject):
    check_subject(subject)
    check_filter(subject)


@pytest.mark.parametrize("subject", ["a.>.b", "a*", "*a", ">>", "a.**", "a b.*", "*\r\nPUB a 1"])
def test_a_wildcard_is_a_whole_token(subject):
    with pytest.raises(InvalidSubjectError):
        check_filter(subject)


@given(st.text())
def test_a_subject_is_one_word_of_its_command(subject):
    try:
        check_subject(subject)
    except InvalidSubjectError:
        return
    command = b"PUB %b  5\r\n" % subject.encode()
    assert command.split() == [b"PUB", subject.encode(), b"5"]
    assert all(subject.split(".")), "no token is empty"


async def test_a_header_adds_no_header_and_no_command(bus):
    value = "x\r\nNats-Rollup: all\r\n\r\nPUB audit.globex 5\r\nhello"
    subject = s.task_changed("acme", "tsk_" + "1" * 26)
    await bus.publisher.publish(subject, b"x", message_id="a", headers={"k": value, "odd\r\nname: 1": "v"})
    stored = await bus.direct.last(s.EVENTS, subject)
    assert (stored.payload, stored.headers["k"]) == (b"x", " ".join(value.replace("\r\n", "  ").split(" ")))
    assert "Nats-Rollup" not in stored.headers
    assert await bus.direct.last(s.AUDIT, s.audit("globex")) is None
