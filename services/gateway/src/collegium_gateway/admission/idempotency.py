"""Idempotency keys: what one may look like, what a request's fingerprint is, and what a standing claim means. Pure.

The first request with a key puts a claim under it, create-once; what the claim says decides for every later one, on
whichever gateway. Theory of operation, by what stands:

    nothing, or released   take it: this request is the first
    another fingerprint    conflict: the key belongs to another request for its day
    stored, answered       attach: the first request's task or reply is this one's
    claimed                wait: somebody works on it; take it over once it has gone stale

A claim is stale when it did not change for ``stale_seconds`` while this request watched. Where taking over too early
does no harm (a task: the broker and the create-once events refuse the second one), the clock in the claim is believed
too, so that a retry long after a crash need not watch. One rule: a claim changes hands by compare-and-set only.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from collegium_contracts.state import IdempotencyClaim

from collegium_gateway.errors import ApiError

HEADER = b"idempotency-key"
PARAM = "Idempotency-Key"
REPLAYED = "idempotent-replayed"
MAX_KEY_CHARS = 255
# Half of SHA-256: nobody but a tenant itself could look for two keys that meet.
_NAME_CHARS = 32

Verdict = Literal["take", "take_over", "attach", "wait"]


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a claim may stand unchanged before it is taken over, and how long a request waits for that at most."""

    stale_seconds: float
    wait_seconds: float
    believes_clocks: bool


# Longer than a publish is tried (15 s, and 3 s more for a payload that is put aside first).
FOR_TASKS = Patience(stale_seconds=20.0, wait_seconds=25.0, believes_clocks=True)
# Whoever works on a reply renews its claim every RENEW_SECONDS.
FOR_REPLIES = Patience(stale_seconds=8.0, wait_seconds=10.0, believes_clocks=False)
RENEW_SECONDS = 2.0


def checked_key(key: str) -> str:
    """Returns the key; raises ApiError ``invalid_value`` unless it is 1 to 255 printable ASCII characters."""
    if 1 <= len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable():
        return key
    raise ApiError(
        "invalid_value", f"{PARAM} must be 1 to {MAX_KEY_CHARS} printable ASCII characters, for instance a UUID",
        param=PARAM,
    )  # fmt: skip


def claim_name(tenant: str, key: str) -> str:
    """Returns the bucket's key for a tenant's idempotency key, from which the latter cannot be read."""
    digest = hashlib.sha256(f"{tenant}\x00{key}".encode()).hexdigest()
    return f"{tenant}.{digest[:_NAME_CHARS]}"


def fingerprint(key: str, method: str, path: str, body: bytes) -> bytes:
    """Returns the SHA-256 of a request; the key salts it, so that a short body cannot be guessed from it."""
    digest = hashlib.sha256()
    for part in (key.encode(), method.encode(), path.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def judge(
    standing: IdempotencyClaim | None,
    asked: bytes,
    patience: Patience,
    *,
    now_ms: int,
    unchanged_seconds: float,
) -> Verdict:
    """Says what a request with the fingerprint ``asked`` may do; raises ApiError ``idempotency_conflict``.

    ``unchanged_seconds`` is for how long this request has seen the claim stand as it does.
    """
    if standing is None or standing.state == "released":
        return "take"
    if standing.fingerprint != asked:
        raise ApiError(
            "idempotency_conflict",
            "this Idempotency-Key was sent with another request within the last day; use a new key for a new request",
            param=PARAM,
        )
    if standing.state != "claimed":
        return "attach"
    if unchanged_seconds >= patience.stale_seconds:
        return "take_over"
    if patience.believes_clocks and now_ms - standing.changed_at_ms >= patience.stale_seconds * 1000:
        return "take_over"
    return "wait"


def in_progress() -> ApiError:
    """Returns what a request is told whose first one still runs after the wait."""
    return ApiError(
        "idempotency_in_progress",
        "the first request with this Idempotency-Key is still running; send it again a little later",
        param=PARAM,
        retry_after_seconds=2,
    )
