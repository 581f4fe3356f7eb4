"""Shared state: compare-and-set decides, watches follow, a lease has one owner."""

from __future__ import annotations

import pytest
from collegium_bus.ask import ask
from collegium_bus.errors import AlreadyStandsError, NoAnswerError, RequestRefusedError, TooLargeError
from collegium_bus.kv import VALUE_BYTES_MAX, Bucket
from collegium_bus.leases import CLOCK_MARGIN_SECONDS, LEASE_SECONDS, LeaseHolder
from collegium_bus.shell import Answering
from collegium_contracts import subjects as s
from collegium_contracts.reports import RequestsRequest
from collegium_contracts.requests import KeysReply, TenantList, TenantRow, TenantsReply
from collegium_testing import VirtualClock, eventually


async def test_of_two_writers_with_one_revision_one_wins(bus):
    bucket = Bucket(bus.connection, s.KV_POLICY)
    assert await bucket.get("k") is None
    first = await bucket.put("k", b"1", expected_revision=0)
    with pytest.raises(AlreadyStandsError):
        await bucket.put("k", b"2", expected_revision=0)
    second = await bucket.put("k", b"2", expected_revision=first)
    entry = await bucket.get("k")
    assert (entry.value, entry.revision) == (b"2", second)


async def test_a_watch_tells_what_stands_and_then_what_comes(bus):
    bucket = Bucket(bus.connection, s.KV_POLICY)
    await bucket.put("a", b"old")
    await bucket.put("a", b"new")
    seen: list[tuple[str, bytes]] = []
    watch = bucket.watch(lambda entry: seen.append((entry.key, entry.value)))
    await watch.start()
    assert seen == [("a", b"new")]
    await bucket.put("b", b"later")
    await eventually(lambda: seen[-1] == ("b", b"later"))
    await watch.stop()


async def test_a_value_reaches_watchers_whole_or_is_refused(bus):
    bucket = Bucket(bus.connection, s.KV_POLICY)
    large = bytes(range(256)) * (VALUE_BYTES_MAX // 256)
    revision = await bucket.put("k", large)
    seen: list[bytes] = []
    watch = bucket.watch(lambda entry: seen.append(entry.value))
    await watch.start()
    with pytest.raises(TooLargeError):
        await bucket.put("k", large + b"x" * 256, expected_revision=revision)
    assert seen == [large]
    assert (await bucket.get("k")).value == large
    assert [entry.value async for entry in bucket.entries()] == [large]
    await watch.stop()


async def test_what_the_broker_would_hang_up_on_is_not_sent(bus):
    broken: list[None] = []
    bus.connection.on_reconnect.append(lambda: broken.append(None))
    payload = b"x" * bus.connection.client.max_payload
    with pytest.raises(TooLargeError):
        await bus.connection.request_raw("nobody.listens", payload, headers=b"NATS/1.0\r\n\r\n")
    with pytest.raises(TooLargeError):
        bus.connection.publish("nobody.listens", payload + b"x")
    bus.publisher.tell("nobody.listens", payload, headers={"k": "v"})
    with pytest.raises(NoAnswerError, match="nobody is listening"):
        await bus.connection.request_raw("nobody.listens", payload)
    assert (broken, bus.connection.is_connected) == ([], True)


async def test_a_watch_tells_what_was_deleted_before_and_while_it_watches(bus):
    bucket = Bucket(bus.connection, s.KV_POLICY)
    await bucket.delete("early", expected_revision=await bucket.put("early", b"1"))
    late = await bucket.put("late", b"2")
    values: list[str] = []
    deleted: list[str] = []
    watch = bucket.watch(lambda entry: values.append(entry.key), lambda entry: deleted.append(entry.key))
    await watch.start()
    assert (values, deleted) == (["late"], ["early"])
    await bucket.delete("late", expected_revision=late)
    await bucket.remove("late", revision=late)
    await eventually(lambda: deleted == ["early", "late"])
    assert values == ["late"]
    await watch.stop()


def holder(bus, name: str, clock: VirtualClock, told: list[str]) -> LeaseHolder:
    return LeaseHolder(
        Bucket(bus.connection, s.KV_OWNERS),
        name,
        ["x", "y"],
        on_gained=lambda what, epoch: told.append(f"{name} gained {what} {epoch}"),
        on_lost=lambda what: told.append(f"{name} lost {what}"),
        now=clock.now,
    )


async def test_a_lease_has_one_owner_until_it_expires(bus):
    clock = VirtualClock(1_000_000.0)
    told: list[str] = []
    first, second = holder(bus, "one", clock, told), holder(bus, "two", clock, told)
    await first._round()
    await second._round()
    assert (first.held, second.held) == ({"x", "y"}, set())
    clock.advance(LEASE_SECONDS + CLOCK_MARGIN_SECONDS + 0.1)
    await second._round()
    assert second.held == {"x", "y"}
    # The first, late, renews with a revision that is no longer the newest.
    await first._round()
    assert first.held == set()
    assert told == [
        "one gained x 1", "one gained y 1", "two gained x 2", "two gained y 2", "one lost x", "one lost y",
    ]  # fmt: skip


async def test_a_lease_is_left_to_its_owner_however_the_clocks_differ(bus):
    here, ahead = VirtualClock(1_000_000.0), VirtualClock(1_000_600.0)
    told: list[str] = []
    owner, other = holder(bus, "one", here, told), holder(bus, "two", ahead, told)
    await owner._round()
    for _ in range(10):
        await other._round()
        for clock in (here, ahead):
            clock.advance(LEASE_SECONDS / 3)
        await owner._round()
    assert other.held == set()
    for _ in range(6):
        await other._round()
        ahead.advance(LEASE_SECONDS / 3)
    assert other.held == {"x", "y"}, "an owner that died is followed as soon as if the clocks agreed"


async def test_an_owner_that_cannot_renew_in_time_stops_acting(bus):
    clock = VirtualClock(1_000_000.0)
    told: list[str] = []
    owner = holder(bus, "one", clock, told)
    await owner._round()

    async def unreachable(*_arguments, **_more):
        raise NoAnswerError("away")

    owner._bucket.put = unreachable  # type: ignore[method-assign]
    clock.advance(LEASE_SECONDS - CLOCK_MARGIN_SECONDS + 0.1)
    await owner._round()
    assert owner.held == set()


@pytest.mark.parametrize("when", ["before the round", "while the broker is asked"])
async def test_who_was_told_no_is_told_of_the_loss_and_of_the_new_epoch(bus, when: str):
    """A lease that lapsed and was then renewed as if nothing had been would leave work behind that was refused."""
    clock = VirtualClock(1_000_000.0)
    told: list[str] = []
    owner = holder(bus, "one", clock, told)
    await owner._round()
    told.clear()
    lapse_seconds = LEASE_SECONDS - CLOCK_MARGIN_SECONDS + 0.1
    put = owner._bucket.put

    async def slow(*arguments, **more):
        owner._bucket.put = put  # type: ignore[method-assign]
        clock.advance(lapse_seconds)
        assert not owner.holds("x")
        return await put(*arguments, **more)

    if when == "before the round":
        clock.advance(lapse_seconds)
        assert not owner.holds("x")
    else:
        owner._bucket.put = slow  # type: ignore[method-assign]
    await owner._round()
    assert owner.holds("x")
    assert [line for line in told if " x" in line] == ["one lost x", "one gained x 2"]


async def test_a_lease_given_back_or_taken_again_by_its_owner_needs_no_waiting(bus):
    clock = VirtualClock(1_000_000.0)
    told: list[str] = []
    first = holder(bus, "one", clock, told)
    await first._round()
    reborn = holder(bus, "one", clock, told)
    await reborn._round()
    assert reborn.held == {"x", "y"}
    await reborn.stop()
    second = holder(bus, "two", clock, told)
    await second._round()
    assert second.held == {"x", "y"}


async def test_a_question_has_a_typed_answer_or_a_typed_refusal(bus):
    async def tenants(_question, traceparent):
        if traceparent == "refuse":
            raise RequestRefusedError("not_found", "there is none", "id")
        if traceparent == "break":
            raise ValueError("a defect")
        if traceparent == "unstorable":
            raise LookupError("no column takes this")
        return TenantsReply(tenants=[TenantRow(id="acme", tier="pro", created_at_ms=1, keys=2)])

    answering = Answering(
        bus.connection, {s.SVC_BILLING_TENANT_LIST: tenants}, lambda error: isinstance(error, LookupError)
    )
    await answering.start()

    async def asked(traceparent: str, expected=TenantsReply):
        return await ask(bus.connection, s.SVC_BILLING_TENANT_LIST, TenantList(), expected, traceparent=traceparent)

    assert (await asked("x")).tenants[0].id == "acme"
    with pytest.raises(RequestRefusedError) as refused:
        await asked("refuse")
    assert (refused.value.code, refused.value.param) == ("not_found", "id")
    with pytest.raises(RequestRefusedError) as broken:
        await asked("break")
    assert (broken.value.code, "a defect" in str(broken.value)) == ("internal_error", False)
    with pytest.raises(RequestRefusedError, match="NUL") as unstorable:
        await asked("unstorable")
    assert unstorable.value.code == "invalid_value"
    question = RequestsRequest(tenant="acme", from_ms=10**30, to_ms=1)
    with pytest.raises(RequestRefusedError, match="out of bounds") as huge:
        await ask(bus.connection, s.SVC_BILLING_TENANT_LIST, question, TenantsReply)
    assert huge.value.code == "invalid_value"
    with pytest.raises(NoAnswerError, match="not KeysReply"):
        await asked("x", KeysReply)
    await answering.stop()
    with pytest.raises(NoAnswerError, match="nobody"):
        await asked("x")
