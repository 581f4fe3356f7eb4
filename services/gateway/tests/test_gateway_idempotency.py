"""What an idempotency key may look like, and what a standing claim means for the next request."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_contracts import codec
from collegium_contracts.envelope import Envelope
from collegium_contracts.state import IdempotencyClaim
from collegium_gateway.admission.idempotency import (
    FOR_REPLIES,
    FOR_TASKS,
    RENEW_SECONDS,
    checked_key,
    claim_name,
    fingerprint,
    judge,
)
from collegium_gateway.errors import ApiError
from collegium_gateway.http.keyed_replies import is_kept
from hypothesis import given
from hypothesis import strategies as st

ASKED = fingerprint("k", "POST", "/v1/tasks", b"{}")
NOW_MS = 1_767_225_600_000


def claim(state: Any = "claimed", **fields: Any) -> IdempotencyClaim:
    values: dict[str, Any] = {
        "fingerprint": ASKED, "state": state, "holder": "gw1.1", "created_at_ms": NOW_MS, "changed_at_ms": NOW_MS
    }  # fmt: skip
    return IdempotencyClaim(**(values | fields))


@pytest.mark.parametrize("key", ["k", "x" * 255, "a b", "~!{}", "0d9a6c1e-7c4b-4d0c-9a55-3d1f6e2f8a10"])
def test_printable_ascii_up_to_255_characters_is_a_key(key: str):
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\nb", "\x7f", "a\tb"])
def test_anything_else_is_refused_by_name(key: str):
    with pytest.raises(ApiError) as refused:
        checked_key(key)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "Idempotency-Key")


@given(st.text(), st.text())
def test_a_claims_name_is_one_tenants_and_hides_the_key(key: str, other: str):
    name = claim_name("acme", key)
    tenant, _, digest = name.partition(".")
    assert (tenant, len(digest), int(digest, 16) >= 0) == ("acme", 32, True)
    assert (claim_name("acme", other) == name) == (key == other)
    assert claim_name("globex", key).partition(".")[2] != digest


PARTS = st.tuples(st.text(), st.sampled_from(["POST", "gRPC"]), st.text(), st.binary())


@given(PARTS, PARTS)
def test_a_fingerprint_is_of_the_whole_request(one: Any, other: Any):
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


def test_parts_of_a_request_do_not_run_into_each_other():
    assert fingerprint("k", "POST", "/a", b"bc") != fingerprint("k", "POST", "/ab", b"c")


@pytest.mark.parametrize("patience", [FOR_TASKS, FOR_REPLIES])
@pytest.mark.parametrize(
    ("standing", "verdict"),
    [
        (None, "take"),
        (claim("released", fingerprint=b"other"), "take"),
        (claim("stored"), "attach"),
        (claim("answered"), "attach"),
        (claim("claimed"), "wait"),
    ],
)
def test_what_stands_decides(patience: Any, standing: IdempotencyClaim | None, verdict: str):
    assert judge(standing, ASKED, patience, now_ms=NOW_MS, unchanged_seconds=0) == verdict


@pytest.mark.parametrize("state", ["claimed", "stored", "answered"])
def test_another_request_is_refused_whatever_the_first_one_does(state: str):
    with pytest.raises(ApiError) as refused:
        judge(claim(state), b"other", FOR_TASKS, now_ms=NOW_MS + 10**9, unchanged_seconds=10**6)
    assert (refused.value.code, refused.value.kind.http_status) == ("idempotency_conflict", 409)


@pytest.mark.parametrize("patience", [FOR_TASKS, FOR_REPLIES])
def test_a_claim_that_stood_still_is_taken_over_whatever_the_clocks_say(patience: Any):
    for skew_ms in (0, 600_000, -600_000):
        stood = patience.stale_seconds
        assert judge(claim(), ASKED, patience, now_ms=NOW_MS + skew_ms, unchanged_seconds=stood) == "take_over"
    assert patience.wait_seconds > patience.stale_seconds, "one request lives to see a claim go stale"


def test_only_for_a_task_is_the_claims_own_clock_believed():
    later = NOW_MS + 600_000
    assert judge(claim(), ASKED, FOR_TASKS, now_ms=later, unchanged_seconds=0) == "take_over"
    assert judge(claim(), ASKED, FOR_REPLIES, now_ms=later, unchanged_seconds=0) == "wait"
    assert FOR_REPLIES.stale_seconds > 3 * RENEW_SECONDS, "two renewals may be lost"


def test_successes_and_what_a_request_met_are_kept():
    assert [status for status in (200, 201, 202, 204, 404, 409) if not is_kept(status)] == []
    assert [status for status in (307, 400, 401, 403, 405, 413, 422, 429, 500, 502, 503, 504) if is_kept(status)] == []


def test_a_claim_reads_back():
    full = claim("answered", task_id="tsk_1", trace_id="t", reply=Envelope("k", b"n", b"b"))
    assert codec.state.decode(codec.encode(full)) == full
