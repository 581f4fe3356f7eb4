"""Parts of messages that are no messages themselves and that nobody else's part depends on.

Here: how a model is asked, which attempt of how many, what one call used, what is known of a dead letter's original,
and where a reused answer comes from. Not here: the messages that carry them (messages.py, which also hands these names
on). One rule: as for messages, new fields have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.money import Price, Usage

CacheResult = Literal["off", "miss", "hit_exact", "hit_semantic"]
Rank = Literal["student", "ta", "teacher"]
Plan = Literal["auto", "single", "cascade", "panel"]


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


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model is asked, as OpenAI's parameters of the same names; no ``max_tokens`` means the model's own limit.

    ``words`` seals those of them that hold a tenant's words (wording.py), of ``words_bytes``; they are none then.
    ``dimensions`` is for embeddings.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    n: int = 1
    tools: bytes | None = None
    tool_choice: bytes | None = None
    response_format: bytes | None = None
    stream: bool = False
    words: Envelope | None = None
    words_bytes: int = 0
    dimensions: int | None = None


class AttemptRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which attempt of how many, by which model; ``number`` counts from 1. Prices are pinned by the router.

    ``price_version`` names the version of the model's prices that these are (0: pinned before versions were told).
    """

    number: int
    of: int
    model: str
    rank: Rank
    pool: str
    price: Price
    charge: Price
    plan: Plan = "single"
    price_version: int = 0


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
