"""Parts of messages that are no messages themselves and that nobody else's part depends on.

Here: what every message says of its task, how a model is asked, which attempt of how many, what one call used, what is
known of a dead letter's original, and where a reused answer comes from. Not here: the messages that carry them
(messages.py, which also hands these names on). One rule: as for messages, new fields have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.gates import Gated
from collegium_contracts.money import Price, Usage

CacheResult = Literal["off", "miss", "hit_exact", "hit_semantic"]
Rank = Literal["student", "ta", "teacher"]
Plan = Literal["auto", "single", "cascade", "panel"]
Priority = Literal["high", "normal", "low"]
Surface = Literal["chat", "tasks", "grpc"]
Kind = Literal["chat", "embedding"]


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


class TaskRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every message about a task repeats, so that no service has to look it up.

    ``reply`` names the gateway replica that waits for the task (empty when none does); ``deadline_ms`` is absolute;
    ``model`` is what the client asked for (a roster name or ``auto``). ``callback`` says that somebody wants to be
    called when the task settles; where, only ``TaskAccepted`` knows. ``not_before_ms`` is when a scheduled task
    may begin (0: at once); until it is released its deadline counts from there. ``hold_expires_ms`` is when the money
    held for it is given back (0: nothing is held yet); no call may begin after it.
    ``cache`` says what came of looking for the answer among earlier ones, and ``reused`` which one was taken.
    ``models`` (empty: all) are those that its key may ask; ``pool`` (empty: its model's) is its tenant's own.
    ``memory`` is the path that is recalled for it (empty: none; ``off``: none, and its turn is not kept either), and
    ``recalled`` what came of it. ``kind`` says what is to be done: an ``embedding`` seals texts where a chat seals
    messages, and is given to models of its kind alone. ``gated`` (none: nothing) is what its answer still has to
    pass. ``quality_min`` (0: none was stated) is the confidence below which a cascade asks on.
    """

    id: str
    tenant: str
    created_at_ms: int
    deadline_ms: int
    model: str
    project: str = "default"
    key_id: str = ""
    priority: Priority = "normal"
    plan: Plan = "auto"
    surface: Surface = "chat"
    tier: str = "free"
    domain: str = ""
    reply: str = ""
    conversation: str = ""
    tags: dict[str, str] = {}
    callback: bool = False
    not_before_ms: int = 0
    hold_expires_ms: int = 0
    cache: CacheResult = "off"
    reused: Reuse | None = None
    models: list[str] = []
    pool: str = ""
    memory: str = ""
    recalled: MemoryUse | None = None
    kind: Kind = "chat"
    gated: Gated | None = None
    quality_min: float = 0.0
