"""Standard Webhooks (standardwebhooks.com) as every sender of ours keeps to it: the signature, what an answer means,
when a message is tried again. Pure.

One rule: the id of a message is the same at every try, and the signature covers id, time and body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Literal

Outcome = Literal["delivered", "gone", "refused"]

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with

# A restart is over in seconds, a bad deployment in an hour, an outage in a day; the last step repeats.
DELAYS_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200)
GIVE_UP_SECONDS = 86_400
# A receiver may ask for more time, but not for so much that the day is over.
MAX_ASKED_SECONDS = 3600
_JITTER = 0.5


def signature(key: bytes, message: str, timestamp_seconds: int, body: bytes) -> str:
    """Signs one message: HMAC-SHA256 of ``id.timestamp.body``, version 1 of the standard."""
    digest = hmac.new(key, b"%b.%d.%b" % (message.encode(), timestamp_seconds, body), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def key_of(secret: str) -> bytes:
    """Reads a key as receivers are given it; raises ValueError where it is none."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a key of webhooks begins with whsec_")
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def outcome_of(status: int) -> Outcome:
    """Returns what a receiver's status means: any 2xx takes the message, 410 wants no more of it."""
    if 200 <= status < 300:
        return "delivered"
    return "gone" if status == 410 else "refused"


def retry_after_ms(tries: int, tried_for_ms: int, jitter: float, *, asked_seconds: int = 0) -> int | None:
    """Returns how long to wait after the ``tries``-th try (from 1); none when the message is given up.

    ``tried_for_ms`` is the time since the first try, ``jitter`` is from 0 to 1, and ``asked_seconds`` what the receiver
    asked for.
    """
    step = DELAYS_SECONDS[min(max(tries, 1), len(DELAYS_SECONDS)) - 1]
    wait_seconds = max(step * (1 + _JITTER * (jitter - 0.5)), min(asked_seconds, MAX_ASKED_SECONDS))
    wait_ms = int(wait_seconds * 1000)
    return wait_ms if tried_for_ms + wait_ms <= GIVE_UP_SECONDS * 1000 else None
