"""Permits are what is dispatched and has not ended, whatever is lost, doubled or killed; slices never overlap."""

from __future__ import annotations

import random

from collegium_contracts.state import Shares
from collegium_router.limits.permits import UNKNOWN_MS, AttemptKey, Permit, Permits
from collegium_router.limits.slices import LEASE_MS, divide, renew, without
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000


def permit(task: str, number: int = 1, try_number: int = 1, **fields) -> Permit:
    values = {"tenant": "acme", "model": "sim", "pool": "general", "taken_ms": NOW_MS, **fields}
    return Permit(AttemptKey(task, number, try_number), **values)


def test_a_permit_counts_once_for_tenant_model_and_pool():
    permits = Permits()
    for _ in range(2):
        permits.take(permit("t1"))
    permits.take(permit("t2", tenant="globex"))
    assert permits.in_use == 2
    assert (permits.by_tenant, permits.by_model) == ({"acme": 1, "globex": 1}, {"sim": 2})
    assert permits.give_back("t1")
    assert not permits.give_back("t1"), "an end that is told twice gives nothing back twice"
    assert (permits.in_use, permits.by_pool) == (1, {"general": 1})


def test_a_try_an_attempt_or_a_whole_task_is_given_back():
    permits = Permits()
    for number in (1, 2, 3):
        permits.take(permit("panel", number))
    permits.take(permit("panel", 2, 2))
    permits.give_back("panel", 2, 1)
    assert permits.in_use == 3
    assert permits.holds(AttemptKey("panel", 2, 2)), "the next try keeps its own permit"
    permits.give_back("panel", 2)
    assert permits.in_use == 2
    permits.give_back("panel")
    assert permits.in_use == 0


def test_work_is_the_truth_after_a_while():
    permits = Permits()
    permits.take(permit("finished", taken_ms=NOW_MS - UNKNOWN_MS - 1))
    permits.take(permit("on its way", taken_ms=NOW_MS - 1))
    permits.take(permit("lost shard", tenant="other"))
    standing = [permit("of the owner before"), permit("of another shard", tenant="other")]
    assert permits.reconcile(standing, lambda tenant: tenant == "acme", NOW_MS) == (1, 2)
    assert permits.in_use == 2
    assert permits.holds(AttemptKey("of the owner before", 1, 1))
    assert permits.holds(AttemptKey("on its way", 1, 1))


def test_an_attempt_that_has_ended_and_is_not_acknowledged_yet_gets_no_permit_back():
    permits = Permits()
    ended = permit("ended", sent_ms=NOW_MS)
    assert permits.reconcile([ended], lambda _tenant: True, NOW_MS, seen_before=()) == (0, 0)
    assert permits.reconcile([ended], lambda _tenant: True, NOW_MS, seen_before={ended.key}) == (1, 0)
    assert permits.reconcile([], lambda _tenant: True, NOW_MS + 1_001, seen_before=()) == (0, 1)


def test_what_was_stored_and_stands_no_more_has_ended():
    permits = Permits()
    permits.take(permit("late copy"))
    permits.sent(AttemptKey("late copy", 1, 1), NOW_MS)
    permits.sent(AttemptKey("unknown", 1, 1), NOW_MS)
    assert permits.reconcile([], lambda _tenant: True, NOW_MS + 500) == (0, 0), "the listing may lag a little"
    assert permits.reconcile([], lambda _tenant: True, NOW_MS + 1_001) == (0, 1)


@given(st.integers(0, 200), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 300), min_size=1))
def test_a_resource_is_divided_without_a_rest_and_without_envy(capacity, wanted):
    given_out = divide(capacity, wanted)
    assert sum(given_out.values()) == capacity
    for name, permits in given_out.items():
        if permits < wanted[name]:
            # Whoever wants more than it got has no less than anybody else got beyond their own wants.
            assert all(permits + 1 >= min(other, wanted[other_name]) for other_name, other in given_out.items())


@given(st.integers(1, 64), st.integers(0, 2**32))
def test_slices_never_add_up_to_more_than_there_is(capacity, seed):
    """Routers come, go, stop renewing and change their minds; no two live slices overlap."""
    chance = random.Random(seed)
    standing, now = Shares(resource="model sim", capacity=capacity), NOW_MS
    for _ in range(60):
        me = chance.choice("abcd")
        if chance.random() < 0.1:
            standing = without(standing, me)
        mine = standing.shares.get(me)
        held = mine.permits if mine is not None and mine.expires_ms > now else 0
        standing = renew(
            standing,
            me,
            capacity=capacity,
            wanted=chance.randint(0, 2 * capacity),
            in_use=chance.randint(0, held),
            now_ms=now,
            gone={name for name, share in standing.shares.items() if share.expires_ms <= now},
        )
        live = [share.permits for share in standing.shares.values() if share.expires_ms > now]
        assert sum(live) <= capacity
        assert min(live) >= 0
        now += chance.randint(0, LEASE_MS)


def test_a_slice_grows_only_into_what_others_gave_up():
    alone = renew(Shares(resource="r", capacity=8), "a", capacity=8, wanted=8, in_use=8, now_ms=NOW_MS)
    assert alone.shares["a"].permits == 8
    joined = renew(alone, "b", capacity=8, wanted=8, in_use=0, now_ms=NOW_MS + 1)
    assert joined.shares["b"].permits == 0, "nothing is free before the first has shrunk"
    shrunk = renew(joined, "a", capacity=8, wanted=8, in_use=5, now_ms=NOW_MS + 2)
    assert shrunk.shares["a"].permits == 5, "what is in use is not taken away"
    assert renew(shrunk, "b", capacity=8, wanted=8, in_use=0, now_ms=NOW_MS + 3).shares["b"].permits == 3
    later = NOW_MS + 2 + LEASE_MS
    assert renew(shrunk, "b", capacity=8, wanted=8, in_use=0, now_ms=later).shares["b"].permits == 3, (
        "whether a is gone is not for its clock to say"
    )
    alone_again = renew(shrunk, "b", capacity=8, wanted=8, in_use=0, now_ms=later, gone={"a"})
    assert alone_again.shares["b"].permits == 8
