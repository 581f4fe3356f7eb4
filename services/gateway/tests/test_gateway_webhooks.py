"""Webhooks as values: signatures, keys, the schedule of tries, and the fair choice."""

import base64
from collections import Counter

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts import webhooks as standard
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.messages import TaskAccepted, TaskDispatched
from collegium_gateway.readmodel.rows import row_of
from collegium_gateway.tasks.views import task_view
from collegium_gateway.webhooks import values as w
from collegium_testing.webhooks import verify
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000
DAY_MS = 86_400_000
KEYRING = IdentityKeyring()


def test_a_signature_is_the_standards():
    """The example that the standard's reference libraries are tested with."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = standard.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("state", ["completed", "failed", "canceled"])
def test_a_message_holds_the_task_as_it_is_shown(settled, state):
    message = settled(state)
    row = row_of(message, codec.encode(message))
    assert row is not None
    body = msgspec.json.decode(w.body_of(row, KEYRING))
    shown = msgspec.json.decode(msgspec.json.encode(task_view(row, KEYRING)))
    assert body == {"type": f"task.{state}", "timestamp": shown["settled_at"], "data": shown}


def test_the_headers_are_the_standards_and_a_receiver_accepts_them():
    secrets = w.Secrets([w.Secret(b"new" * 10, NOW_MS), w.Secret(b"old" * 10, 0, NOW_MS + 1)])
    headers = w.headers_of(secrets, w.message_id("tsk_1"), b"{}", NOW_MS)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", str(NOW_MS // 1000))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in secrets.keys:
        assert verify(w.shown(secret), headers, b"{}", now_seconds=NOW_MS / 1000)
        assert not verify(w.shown(secret), headers, b"{} ", now_seconds=NOW_MS / 1000)
    assert not verify(w.shown(w.Secret(b"other" * 6, 0)), headers, b"{}", now_seconds=NOW_MS / 1000)
    later = w.headers_of(secrets, "msg_1", b"{}", NOW_MS + 1)
    assert len(later["webhook-signature"].split(" ")) == 1


def test_a_new_key_comes_first_and_the_old_one_ends_after_its_grace():
    first = w.Secrets([w.Secret(b"a", NOW_MS)])
    second = w.rotate(first, b"b", NOW_MS, 60)
    assert [one.key for one in w.in_force(second, NOW_MS + 59_999)] == [b"b", b"a"]
    assert [one.key for one in w.in_force(second, NOW_MS + 60_000)] == [b"b"]


def test_grace_never_grows_and_none_ends_all_earlier_keys():
    second = w.rotate(w.Secrets([w.Secret(b"a", NOW_MS)]), b"b", NOW_MS, 60)
    third = w.rotate(second, b"c", NOW_MS, 3600)
    assert [(one.key, one.expires_at_ms) for one in third.keys] == [
        (b"c", None),
        (b"b", NOW_MS + 3_600_000),
        (b"a", NOW_MS + 60_000),
    ]
    assert [one.key for one in w.rotate(third, b"d", NOW_MS, 0).keys] == [b"d"]


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=12))
def test_keys_stay_few_and_the_newest_is_always_in_force(rotations):
    secrets, now = w.Secrets([]), NOW_MS
    for number, (seconds, grace) in enumerate(rotations):
        now += seconds * 1000
        secrets = w.rotate(secrets, b"%d" % number, now, grace)
        assert w.in_force(secrets, now)[0].key == b"%d" % number
        assert len(secrets.keys) <= 1 + w.MAX_EARLIER_SECRETS
        assert [one.expires_at_ms for one in secrets.keys].count(None) == 1


def test_tries_come_later_and_later_for_a_day():
    waits: list[int] = []
    while (wait := standard.retry_after_ms(len(waits) + 1, sum(waits), 0.5)) is not None:
        waits.append(wait)
    assert waits[:7] == [5_000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000, 7_200_000]
    assert set(waits[7:]) == {7_200_000}
    assert DAY_MS - 7_200_000 < sum(waits) <= DAY_MS


@given(st.integers(1, 40), st.integers(0, DAY_MS), st.floats(0, 1), st.integers(0, 10**6))
def test_a_wait_is_near_its_step_never_less_than_asked_and_ends_within_the_day(tries, tried_for, jitter, asked):
    wait = standard.retry_after_ms(tries, tried_for, jitter, asked_seconds=asked)
    step = standard.DELAYS_SECONDS[min(tries, len(standard.DELAYS_SECONDS)) - 1] * 1000
    floor = min(asked, standard.MAX_ASKED_SECONDS) * 1000
    if wait is None:
        assert tried_for + max(step * 1.25, floor) > DAY_MS
    else:
        assert max(step * 0.75, floor) - 1 <= wait <= max(step * 1.25, floor)
        assert tried_for + wait <= DAY_MS


def test_jitter_spreads_those_that_failed_together():
    assert standard.retry_after_ms(1, 0, 0.0) == 3_750
    assert standard.retry_after_ms(1, 0, 1.0) == 6_250


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "delivered"), (204, "delivered"), (299, "delivered"), (199, "refused"), (301, "refused"), (307, "refused"),
     (400, "refused"), (404, "refused"), (410, "gone"), (429, "refused"), (500, "refused")],
)  # fmt: skip
def test_what_a_status_means(status, outcome):
    assert standard.outcome_of(status) == outcome


def candidates(tenant: str, receiver: str, count: int) -> list[w.Candidate]:
    return [w.Candidate(f"{receiver}-{number}", tenant, receiver) for number in range(count)]


def test_a_receiver_and_a_tenant_leave_room_for_others():
    due = candidates("a", "slow", 100)
    for number in range(20):
        due += candidates("a", f"r{number}", 10)
    due += candidates("b", "other", 100)
    chosen = w.choose(due, {}, {}, 0)
    assert Counter(one.tenant for one in chosen) == {"a": w.MAX_PER_TENANT, "b": w.MAX_PER_RECEIVER}
    assert Counter(one.receiver for one in chosen)["slow"] == w.MAX_PER_RECEIVER


@given(
    due=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 5)), max_size=200),
    running=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 5)), max_size=w.MAX_IN_FLIGHT),
)
def test_no_limit_is_passed_and_no_place_is_left_empty(due, running):
    asked = [w.Candidate(str(number), tenant, f"{tenant}{name}") for number, (tenant, name) in enumerate(due)]
    tenants = Counter(tenant for tenant, _ in running)
    receivers = Counter(f"{tenant}{name}" for tenant, name in running)
    chosen = w.choose(asked, tenants, receivers, len(running))
    of_tenant = tenants + Counter(one.tenant for one in chosen)
    of_receiver = receivers + Counter(one.receiver for one in chosen)
    assert len(running) + len(chosen) <= w.MAX_IN_FLIGHT
    for one in chosen:
        assert of_tenant[one.tenant] <= w.MAX_PER_TENANT
        assert of_receiver[one.receiver] <= w.MAX_PER_RECEIVER
    for one in (one for one in asked if one not in chosen):
        assert (
            len(running) + len(chosen) == w.MAX_IN_FLIGHT
            or of_tenant[one.tenant] >= w.MAX_PER_TENANT
            or of_receiver[one.receiver] >= w.MAX_PER_RECEIVER
        )


def test_a_batch_without_callbacks_changes_nothing(task, settled):
    plain = [TaskAccepted(task=task(), at_ms=1), TaskDispatched(task=task(), plan="single", models=["m"], at_ms=2)]
    assert w.changes_of([*plain, settled("completed")]) is None


def test_a_batch_tells_of_callbacks_and_of_their_tasks_ends(task, settled):
    ref = task(callback=True)
    sealed = Envelope("identity", b"", b"https://example.org")
    accepted = TaskAccepted(task=ref, at_ms=1, callback=sealed, callback_receiver="r")
    changes = w.changes_of([settled("failed", ref), accepted, settled("completed")])
    assert changes == w.Changes([w.Opened(ref.id, "acme", "r", codec.encode(sealed))], [ref.id])
    assert codec.journey.decode(codec.encode(accepted)) == accepted
