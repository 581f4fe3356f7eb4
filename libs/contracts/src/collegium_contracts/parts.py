"""Parts of messages that are no messages themselves and that nobody else's part depends on.

Here: what one call used, what is known of a dead letter's original, and where a reused answer comes from. Not here: the
messages that carry them (messages.py, which also hands these names on). One rule: as for
messages, new fields have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.money import Usage

CacheResult = Literal["off", "miss", "hit_exact", "hit_semantic"]
Rank = Literal["student", "ta", "teacher"]


class Reuse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an answer that was not made anew comes from: the task that made it, how long before, what that saved.

    ``saved_usd_picos`` is the original's charge. ``is_stale`` marks an answer that is older than answers may be and was
    shown because no model could be asked.
    """

    original: str
    age_seconds: int = 0
    is_stale: bool = False
    saved_usd_picos: int = 0


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task was told from memory: the ids, and by which signals they were found.

    ``words``: without vectors, because they could not be had. ``unavailable``: nothing could be asked in time, and the
    task went on without. ``off``: memory is switched off at the path.
    """

    state: Literal["recalled", "words", "unavailable", "off"] = "recalled"
    ids: list[str] = []


class AttemptUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finished upstream call as it is booked; ``wasted`` marks a call whose result settled nothing."""

    number: int
    delivery: int
    model: str
    rank: Rank
    usage: Usage
    duration_ms: int
    succeeded: bool = True
    wasted: bool = False
    error_code: str = ""
    price_version: int = 0


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
