"""Parts of messages that are no messages themselves and that nobody else's part depends on.

Here: what every message says of its task, how a model is asked, which attempt of how many, what one call used, what is
known of a dead letter's original, and where a reused answer comes from. Not here: the messages that carry them
(messages.py, which also hands these names on). One rule: as for messages, new fields have defaults.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.code_tests import TestState
from collegium_contracts.envelope import Envelope
from collegium_contracts.experiments import Trial
from collegium_contracts.gates import Gated
from collegium_contracts.money import Price, Usage
from collegium_contracts.people import People

CacheResult = Literal["off", "miss", "hit_exact", "hit_semantic"]
Rank = Literal["student", "ta", "teacher"]
Plan = Literal["auto", "single", "cascade", "panel"]
Priority = Literal["high", "normal", "low"]
Surface = Literal["chat", "tasks", "grpc"]
Kind = Literal["chat", "embedding"]
ProbeKind = Literal["audit", "shadow", "trial", "held_out"]
JudgeMode = Literal["pairwise", "rubric"]
AnswerKind = Literal["text", "number", "choice", "label", "json", "code"]


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
    ``dimensions`` is for embeddings. ``answer`` (none: not stated) is the type of answer that is wanted, and ``labels``
    which ones there are where it is one of several.
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
    answer: AnswerKind | None = None
    labels: list[str] | None = None


class AttemptRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which attempt of how many, by which model; ``number`` counts from 1. Prices are pinned by the router.

    ``price_version`` names the version of the model's prices that these are (0: pinned before versions were told).
    ``judges``: it judges the answers of others, and its number is beyond ``of``.
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
    judges: bool = False


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


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who answered, and with whom: members of one ``camp`` said the same (0: nothing). ``logprob`` is the mean of the
    answer's tokens, none where the endpoint gave none. ``tested`` (none: not tested) is what tests of the task said of
    it, and ``passed`` how many it passed; ``is_given`` marks, of tested ones, the answer that is handed out."""

    model: str
    rank: Rank
    camp: int
    logprob: float | None = None
    tested: TestState | None = None
    passed: int = 0
    is_given: bool = False


class Judged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A judge and the camp that it preferred; 0 where it preferred none, and ``note`` says why.

    It had a tie, it flipped when asked in the other order, or its verdict could not be read.
    """

    model: str
    rank: Rank
    camp: int
    note: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a verdict rests on, without what anybody said: the answers' type, who agreed with whom, the winner's camp.

    ``probability`` is the share of belief that the tally gave it, ``judge`` the share of judgements that preferred it.
    ``policy`` names the version of the calibration that made the confidence of it (empty: a stated prior). ``tests``
    is how many tests came with the task.
    """

    answer_type: AnswerKind
    camp: int
    said: list[Said]
    probability: float
    judge: float | None = None
    policy: str = ""
    choices: int = 0
    judged: list[Judged] = []
    tests: int = 0


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


class Probe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task asks again: the settled task ``of`` its tenant, why, and who pays for it.

    On the operator's ``account`` its tenant is charged nothing; its cost is booked all the same. A ``trial`` asks what
    the other arm of an experiment would have answered: its ``model``, told its ``instruction``. A ``held_out`` asks a
    fine-tuned ``model`` what it was not trained on: ``answer`` claims the sealed answer that stands, which ``gave``, of
    ``gave_rank``, had given.
    """

    of: str
    kind: ProbeKind = "audit"
    account: Literal["operator", "tenant"] = "operator"
    model: str = ""
    trial: Trial | None = None
    instruction: Envelope | None = None
    answer: str = ""
    gave: str = ""
    gave_rank: str = ""


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
    pass. ``quality_min`` (0: none was stated) is the confidence below which a cascade asks on. ``probe`` says that
    nobody asked: the platform asks again what was settled, to learn from it. ``people`` (none: nobody) says who is
    still asked about it. ``collects_since_ms`` above 0: since then its tenant agrees that its work is learned from, so
    that the prompt is settled with it, sealed. ``checks`` (empty: none) is the task whose answer it is asked about,
    and whose place it takes. ``open_to`` are plans that the router may give a task whose plan is ``auto``, and that its
    hold covers; the first is what a novel question becomes. Once it is dispatched ``plan`` is what it was given, and
    ``plan_reason`` (empty: its client's choice, or one attempt) the code of why (routing.py). ``tests`` is how many
    tests its answers are to pass: then consensus settles it.
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
    people: People | None = None
    probe: Probe | None = None
    collects_since_ms: int = 0
    cost_max_picos: int = 0
    checks: str = ""
    open_to: list[Plan] = []
    plan_reason: str = ""
    tests: int = 0
