"""Parts of messages that are no messages themselves and that nobody else's part depends on.

Here: what is known of a dead letter's original, and where a reused answer comes from. Not here: the messages that carry
them (messages.py, which also hands these names on). One rule: as for messages, new fields have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

CacheResult = Literal["off", "miss", "hit_exact", "hit_semantic"]


class Reuse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an answer that was not made anew comes from: the task that made it, how long before, what that saved.

    ``saved_usd_picos`` is the original's charge. ``is_stale`` marks an answer that is older than answers may be and was
    shown because no model could be asked.
    """

    original: str
    age_seconds: int = 0
    is_stale: bool = False
    saved_usd_picos: int = 0


class LetterAbout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could be told of a dead letter's original.

    ``consumer`` is the durable that delivered it (empty where it was read in order); ``kind`` is its type; ``code`` is
    the error's of a task that failed. Each is empty where it could not be told.
    """

    consumer: str = ""
    kind: str = ""
    task_id: str = ""
    attempt: int = 0
    traceparent: str = ""
    code: str = ""


NOTHING_KNOWN = LetterAbout()
