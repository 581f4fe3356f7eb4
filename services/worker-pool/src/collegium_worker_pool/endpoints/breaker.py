"""When an endpoint is left alone: a circuit breaker as values. Pure.

    closed ──5 failures in 60 s──▶ open ──30 s──▶ half-open ──one probe──▶ closed, or open again

A breaker counts what says that the endpoint is not well (no answer, an error of its own, a broken answer, a key that it
refuses); a request that it refuses, or a rate limit, is an answer. One rule: in the half-open state one call goes
through at a time, whoever makes it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from collegium_contracts.state import Breaker

FAILURES: Final = 5
WINDOW_MS: Final = 60_000
OPEN_MS: Final = 30_000
COUNTED: Final = frozenset(
    (
        "upstream_error",
        "upstream_unreachable",
        "upstream_timeout",
        "upstream_garbage",
        "upstream_cut",
        "upstream_auth",
    )
)

Admission = Literal["pass", "probe", "no"]


def admission(breaker: Breaker, now_ms: int) -> Admission:
    """Says whether a call may be made: freely, as the one probe (which has to be claimed), or not."""
    if not breaker.open_until_ms:
        return "pass"
    if now_ms < breaker.open_until_ms or now_ms < breaker.probe_until_ms:
        return "no"
    return "probe"


def next_admission_ms(breaker: Breaker) -> int:
    """When a refused call may be asked for again (Unix ms)."""
    return max(breaker.open_until_ms, breaker.probe_until_ms)


def probing(breaker: Breaker, now_ms: int, probe_ms: int) -> Breaker:
    """The breaker with its probe taken for ``probe_ms``."""
    return msgspec.structs.replace(breaker, probe_until_ms=now_ms + probe_ms)


def failed(breaker: Breaker, now_ms: int) -> Breaker:
    """The breaker after a failure."""
    if breaker.open_until_ms:
        if now_ms < breaker.open_until_ms:
            return breaker
        return msgspec.structs.replace(breaker, open_until_ms=now_ms + OPEN_MS, probe_until_ms=0)
    late = [at for at in breaker.failures_ms if at > now_ms - WINDOW_MS]
    late.append(now_ms)
    open_until_ms = now_ms + OPEN_MS if len(late) >= FAILURES else 0
    return msgspec.structs.replace(breaker, failures_ms=late[-FAILURES:], open_until_ms=open_until_ms)


def succeeded(breaker: Breaker) -> Breaker:
    """The breaker after an answer: an open one closes; one that is closed keeps its window of failures."""
    return Breaker(model=breaker.model) if breaker.open_until_ms else breaker


def health(breaker: Breaker, now_ms: int) -> float:
    """How well an endpoint answers: 1 where nothing failed of late, a fifth less for each failure of the window, 0 from
    the breaker's opening until an answer closes it."""
    if breaker.open_until_ms:
        return 0.0
    late = sum(at > now_ms - WINDOW_MS for at in breaker.failures_ms)
    return max(0.0, 1.0 - late / FAILURES)
