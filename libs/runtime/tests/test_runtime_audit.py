"""The recorder drops nothing in silence, and counting tells of every one, once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from collegium_bus.errors import BrokerUnavailableError, NotPermittedError, QueueFullError, RefusedError
from collegium_contracts import audit as a
from collegium_contracts import codec
from collegium_contracts.audit import AuditEntry
from collegium_runtime import audit as recording
from collegium_runtime.audit import Audit, AuditUnavailableError
from collegium_runtime.audit_counting import Counting
from collegium_testing import eventually
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs


class Broker:
    """Takes what it is told to take, as the publisher does, and knows a message id that comes again."""

    def __init__(self) -> None:
        self.stored: dict[str, AuditEntry] = {}
        self.shut: set[str] = set()
        self.forbidden: set[str] = set()
        self.troubled = False
        self.lost_answers = 0

    async def publish(self, subject: str, payload: bytes, *, message_id: str, **_more: Any) -> None:
        entry = codec.journey.decode(payload)
        assert isinstance(entry, AuditEntry)
        assert subject == f"audit.{entry.tenant}"
        if entry.tenant in self.shut:
            raise QueueFullError("full")
        if entry.tenant in self.forbidden:
            raise NotPermittedError(f"{subject}: may not publish there")
        if self.troubled:
            raise RefusedError(f"{subject}: insufficient storage resources available", 500)
        self.stored[message_id] = entry
        if self.lost_answers:
            self.lost_answers -= 1
            raise BrokerUnavailableError("no answer")

    def actions(self) -> Counter[str]:
        return Counter(entry.action for entry in self.stored.values())


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def audit(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setattr(recording, "FLUSH_SECONDS", 0.001)
    monkeypatch.setattr(recording, "LONGEST_PAUSE_SECONDS", 0.01)
    return Audit(broker, "gateway", lambda: 5)  # pyright: ignore[reportArgumentType] - the part of it that is used


async def test_a_lost_answer_stores_an_entry_once(broker: Broker, audit: Audit) -> None:
    broker.lost_answers = 3
    for number in range(10):
        audit.record(audit.entry("acme", "k", f"act.{number}"))
    await eventually(lambda: audit.waiting == 0)
    assert broker.actions() == Counter(f"act.{number}" for number in range(10))
    await audit.stop()


async def test_one_tenants_full_share_holds_up_nobody_else(broker: Broker, audit: Audit) -> None:
    broker.shut.add("acme")
    for _ in range(200):
        audit.record(audit.entry("acme", "k", "flood"))
    audit.record(audit.entry("globex", "k", "quiet"))
    await eventually(lambda: broker.actions()["quiet"] == 1)
    assert audit.waiting >= 200
    broker.shut.clear()
    await eventually(lambda: broker.actions()["flood"] == 200)
    await audit.stop()


async def test_a_broker_in_trouble_is_told_again(broker: Broker, audit: Audit) -> None:
    broker.troubled = True
    audit.record(audit.entry("acme", "k", "act"))
    with capture_logs() as logs:
        await eventually(lambda: any("trying again" in one["event"] for one in logs))
    assert (audit.waiting, audit.lost) == (1, 0)
    broker.troubled = False
    await eventually(lambda: broker.actions() == Counter({"act": 1}))
    await audit.stop()


async def test_what_finds_no_room_is_counted_and_told(
    broker: Broker, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "BUFFER_MAX", 20)
    broker.shut.add("acme")
    for _ in range(50):
        audit.record(audit.entry("acme", "k", "act"))
    assert (audit.waiting, audit.lost) == (20, 30)
    broker.shut.clear()
    await eventually(lambda: broker.actions()[a.LOST] == 1)
    told = next(entry for entry in broker.stored.values() if entry.action == a.LOST)
    assert (told.tenant, told.count, told.outcome) == ("acme", 30, "failed")
    assert broker.actions()["act"] == 20
    await audit.stop()


@pytest.mark.parametrize(
    "tenant", ["forbidden", "*", ">", "a.b", "../../etc/passwd", "x y", "zz 1\r\nPUB audit.globex 5"]
)
async def test_an_entry_that_can_never_be_stored_is_told_and_holds_up_nobody(
    broker: Broker, audit: Audit, tenant: str
) -> None:
    broker.forbidden.add("forbidden")
    with capture_logs() as logs:
        audit.record(audit.entry("acme", "k", "before"))
        audit.record(audit.entry(tenant, "key1", "models.rank", object="s1"))
        audit.record(audit.entry("acme", "k", "after"))
        await eventually(lambda: broker.actions()[a.LOST] == 1)
        await eventually(lambda: audit.waiting == 0)
    assert (audit.lost, broker.actions()) == (1, Counter({"before": 1, "after": 1, a.LOST: 1}))
    told = next(entry for entry in broker.stored.values() if entry.action == a.LOST)
    assert (told.tenant, told.actor, told.outcome, told.reason) == (
        a.PLATFORM, "service:gateway", "failed", "never_stored",
    )  # fmt: skip
    assert told.details == {
        "action": "models.rank", "tenant": a.printable(tenant), "object": "s1", "actor": "key1", "outcome": "done",
    }  # fmt: skip
    [line] = [one for one in logs if one["log_level"] == "error"]
    assert (line["action"], line["object"], line["actor"]) == ("models.rank", "s1", "key1")
    with pytest.raises(AuditUnavailableError):
        await audit.record_now(audit.entry(tenant, "key1", "models.rank"))
    await audit.stop()


async def test_a_loss_that_cannot_be_told_is_logged_once(broker: Broker, audit: Audit) -> None:
    broker.forbidden.add(a.PLATFORM)
    with capture_logs() as logs:
        audit.record(audit.entry("", "key1", "models.rank"))
        audit.record(audit.entry("acme", "k", "after"))
        await eventually(lambda: audit.waiting == 0 and broker.actions()["after"] == 1)
    assert [one["action"] for one in logs if one["log_level"] == "error"] == ["models.rank", a.LOST]
    assert audit.lost == 1
    await audit.stop()


async def test_an_entry_that_must_stand_now_says_when_it_does_not(broker: Broker, audit: Audit) -> None:
    await audit.record_now(audit.entry("acme", "k", "act"))
    broker.shut.add("acme")
    with pytest.raises(AuditUnavailableError):
        await audit.record_now(audit.entry("acme", "k", "act"))
    assert broker.actions() == Counter(act=1)


def test_an_entry_holds_no_more_than_may_be_stored(audit: Audit) -> None:
    entry = audit.entry(
        "", "a\nb\x00\ud800", "x" * 999, details={str(number): "y" * 999 for number in range(99)}, reason="r\u202e"
    )
    assert entry.tenant == a.PLATFORM
    assert entry.actor == "a\ufffdb\ufffd\ufffd"
    assert entry.reason == "r\ufffd"
    assert len(entry.action) == a.MAX_TEXT_CHARS
    assert len(entry.details) == a.MAX_DETAILS
    assert a.bounded(entry) == entry


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=60), st.integers(1, 4))
def test_everything_is_told_or_counted_once(happened: list[tuple[int, int]], max_keys: int) -> None:
    counting: Counting[int] = Counting(1_000, max_keys)
    told: Counter[int] = Counter()
    now = 0
    for key, later in happened:
        now += later
        for one in counting.ended(now):
            told[one.key] += one.more
        if (first := counting.note(key, -1, now)) is not None:
            told[first] += 1
        assert len(counting._windows) <= max_keys + 1
    for one in counting.rest():
        told[one.key] += one.more
    assert sum(told.values()) == len(happened)
    expected = Counter(key for key, _ in happened)
    assert all(told[key] <= expected[key] for key in told if key != -1)


def test_the_first_is_told_at_once_and_the_others_at_the_end_of_its_minute() -> None:
    counting: Counting[str] = Counting(1_000, 10)
    assert [counting.note("a", "", now) for now in (0, 1, 999)] == ["a", None, None]
    assert counting.ended(999) == []
    assert [(one.key, one.more) for one in counting.ended(1_000)] == [("a", 2)]
    assert counting.note("a", "", 1_001) == "a"
    assert counting.ended(5_000) == []
