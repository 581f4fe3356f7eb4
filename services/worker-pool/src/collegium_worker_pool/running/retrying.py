"""Whether a failed call is tried again, and when. Pure.

Three families: terminal (the request or the configuration is at fault), retryable (the endpoint is not well: full
jitter over an exponentially growing bound, so that callers do not come back together), and rate-limited (the endpoint
says when). A key that the endpoint refuses is terminal for the model, and not for the task where another model could
answer. One rule: text that a client was sent is never sent again, so a stream that broke in its middle is not retried
for a client that listens.
"""

from __future__ import annotations

from typing import Final

from collegium_contracts.errors import TaskError, kind_of
from collegium_contracts.messages import RunAttempt

BASE_MS: Final = 500
CAP_MS: Final = 20_000
# Handing back without a call (an open breaker) costs no call; this bounds how often it may happen.
MAX_TRIES: Final = 50
# A try that could not even begin before the deadline is not asked for.
LEAST_LEFT_MS: Final = 50
# What no other try on the same model can mend, and another model may.
ELSEWHERE: Final = frozenset(("upstream_auth", "endpoint_not_configured", "head_unsure"))


def next_try_ms(
    run: RunAttempt, error: TaskError, *, calls: int, text_was_sent: bool, now_ms: int, chance: float
) -> int | None:
    """Returns when to try again (Unix ms, not before), or none where the attempt has ended.

    ``calls`` counts the calls made so far, this one included; ``chance`` is uniform over [0, 1).
    """
    if calls >= run.max_calls or run.max_calls <= 1 or run.try_number >= MAX_TRIES or text_was_sent:
        return None
    if not kind_of(error.code).retryable and not (error.code in ELSEWHERE and run.alternatives):
        return None
    wait_ms = _wait_ms(run, error, max(1, calls), chance)
    # Another model may answer at once, whatever this one asks for.
    needed_ms = 0 if run.alternatives else wait_ms
    if now_ms + needed_ms + LEAST_LEFT_MS >= run.task.deadline_ms:
        return None
    return now_ms + wait_ms


def is_heard(run: RunAttempt) -> bool:
    """Whether a client listens to the attempt's text as it is written."""
    return run.sampling.stream and bool(run.task.reply) and run.task.surface != "tasks"


def _wait_ms(run: RunAttempt, error: TaskError, calls: int, chance: float) -> int:
    if error.code in ELSEWHERE:
        return 0
    if error.retry_after_seconds is not None:
        # A little later than told, and not all at the same moment.
        return int(error.retry_after_seconds * 1000 + chance * BASE_MS)
    return int(chance * min(CAP_MS, BASE_MS * 2 ** (calls - 1)))
