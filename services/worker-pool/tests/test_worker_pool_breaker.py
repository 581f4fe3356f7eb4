"""When an endpoint is left alone, and when a failed call is tried again."""

from __future__ import annotations

import msgspec
import pytest
from collegium_contracts.errors import ERRORS, TaskError
from collegium_contracts.messages import Sampling
from collegium_contracts.state import Breaker
from collegium_worker_pool.endpoints import breaker as rules
from collegium_worker_pool.running.retrying import BASE_MS, CAP_MS, is_heard, next_try_ms
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000
FRESH = Breaker(model="m")


def after(*moments: int) -> Breaker:
    breaker = FRESH
    for moment in moments:
        breaker = rules.failed(breaker, moment)
    return breaker


def test_five_failures_within_a_minute_open_it_for_half_a_minute():
    four = after(*range(NOW_MS, NOW_MS + 4))
    assert rules.admission(four, NOW_MS + 4) == "pass"
    five = rules.failed(four, NOW_MS + 4)
    assert rules.admission(five, NOW_MS + 5) == "no"
    assert rules.next_admission_ms(five) == NOW_MS + 4 + 30_000
    spread = after(*(NOW_MS + 15_001 * number for number in range(5)))
    assert rules.admission(spread, NOW_MS + 75_000) == "pass", "the first one was more than a minute ago"


def test_health_falls_with_each_failure_and_is_none_until_an_answer_closes_it():
    assert rules.health(after(), 0) == 1.0
    assert rules.health(after(0, 1_000), 2_000) == pytest.approx(0.6)
    assert rules.health(after(0, 59_000), 61_000) == pytest.approx(0.8), "what is older than a minute is forgotten"
    opened = after(*range(5))
    for now in (10, rules.OPEN_MS + 10, 10 * rules.WINDOW_MS):
        assert rules.health(opened, now) == 0.0
    assert rules.health(rules.succeeded(opened), rules.OPEN_MS + 10) == 1.0


def test_one_probe_decides():
    breaker = after(*[NOW_MS] * 5)
    then = NOW_MS + 30_000
    assert rules.admission(breaker, then) == "probe"
    taken = rules.probing(breaker, then, 45_000)
    assert rules.admission(taken, then + 1) == "no", "only one at a time"
    assert rules.admission(taken, then + 45_000) == "probe", "a probe that never ended is not waited for"
    assert rules.admission(rules.succeeded(taken), then + 2) == "pass"
    again = rules.failed(taken, then + 2)
    assert (rules.admission(again, then + 3), rules.next_admission_ms(again)) == ("no", then + 2 + 30_000)


def test_calls_that_were_on_their_way_when_it_opened_change_nothing():
    breaker = after(*[NOW_MS] * 5)
    assert rules.failed(breaker, NOW_MS + 1_000) == breaker


def test_a_success_keeps_a_closed_breakers_failures():
    assert rules.succeeded(after(NOW_MS)) == after(NOW_MS)


def a_run(run, **fields):
    return msgspec.structs.replace(run(), **{"max_calls": 4, **fields})


def again(run_message, code: str, *, calls: int = 1, sent: bool = False, chance: float = 0.5, **error) -> int | None:
    failed = TaskError(code=code, message="x", **error)
    return next_try_ms(run_message, failed, calls=calls, text_was_sent=sent, now_ms=NOW_MS, chance=chance)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_families(run, code):
    retryable = ERRORS[code].retryable
    assert (again(a_run(run), code) is not None) == retryable
    elsewhere = retryable or code in ("upstream_auth", "endpoint_not_configured", "head_unsure")
    assert (again(a_run(run, alternatives=True), code) is not None) == elsewhere


@given(calls=st.integers(1, 3), chance=st.floats(0, 1, exclude_max=True))
def test_the_wait_is_full_jitter_under_a_growing_bound(run, calls, chance):
    wait = again(a_run(run), "upstream_error", calls=calls, chance=chance) - NOW_MS
    assert 0 <= wait <= min(CAP_MS, BASE_MS * 2 ** (calls - 1))


def test_the_endpoint_says_when(run):
    assert again(a_run(run), "upstream_rate_limited", retry_after_seconds=7, chance=0) == NOW_MS + 7_000
    assert again(a_run(run), "upstream_rate_limited", retry_after_seconds=60) is None, "after the deadline"
    elsewhere = a_run(run, alternatives=True)
    assert again(elsewhere, "upstream_rate_limited", retry_after_seconds=60) is not None, "another model may answer"


def test_the_budget_is_counted_in_calls(run):
    assert again(a_run(run), "upstream_error", calls=3) is not None
    assert again(a_run(run), "upstream_error", calls=4) is None
    assert again(a_run(run, max_calls=1), "circuit_open", calls=0) is None


def test_text_that_a_client_was_sent_is_not_asked_for_again(run):
    assert again(a_run(run), "upstream_cut", sent=True) is None
    streamed = msgspec.structs.replace(run(reply="gw1"), sampling=Sampling(stream=True))
    assert is_heard(streamed)
    assert not is_heard(msgspec.structs.replace(run(reply="gw1", surface="tasks"), sampling=Sampling(stream=True)))
    assert not is_heard(msgspec.structs.replace(run(), sampling=Sampling(stream=True)))
    assert not is_heard(run(reply="gw1"))
