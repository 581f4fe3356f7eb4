"""Every message of the journey, as frozen tagged structs.

A message is a past-tense fact (``TaskSubmitted``) or an imperative (``RunAttempt``). On the wire it is a msgpack map
whose ``type`` is the struct's name; fields unknown to a reader pass, new fields have defaults, and ``v`` is the major
version, which a reader that does not know it refuses with a typed error (codec.py). Content stands in envelopes only.

Times are Unix milliseconds, absolute. Money is pico-dollars. One rule: a field is never renamed or given a new
meaning; the golden wire files hold us to it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.money import Price, Usage

MAJOR_VERSION = 1

Priority = Literal["high", "normal", "low"]
Plan = Literal["auto", "single", "cascade", "panel"]
Rank = Literal["student", "ta", "teacher"]
Surface = Literal["chat", "tasks", "grpc"]
CacheMode = Literal["off", "exact", "use", "refresh"]
StopReason = Literal[
    "completed",
    "length",
    "tool_calls",
    "content_filter",
    "deadline",
    "canceled",
    "client_disconnected",
    "failed",
    "no_majority",
]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    """Base of all messages; ``v`` is the major version of the schema."""

    v: int = MAJOR_VERSION


class TaskRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every message about a task repeats, so that no service has to look it up.

    ``reply`` names the gateway replica that waits for the task (empty when none does); ``deadline_ms`` is absolute;
    ``model`` is what the client asked for (a roster name or ``auto``). ``not_before_ms`` is when a scheduled task may
    begin (0: at once); until it is released its deadline counts from there.
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
    domain: str = ""
    reply: str = ""
    conversation: str = ""
    tags: dict[str, str] = {}
    not_before_ms: int = 0


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model is asked, as OpenAI's parameters of the same names; no ``max_tokens`` means the model's own limit."""

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


class TaskSubmitted(Message, frozen=True, kw_only=True):
    """The gateway accepted a request (hop 1). ``prompt`` seals JSON: a list of chat messages."""

    task: TaskRef
    prompt: Envelope
    sampling: Sampling
    prompt_bytes: int
    panel_size: int = 3


class FireSchedule(Message, frozen=True, kw_only=True):
    """A cron schedule's next firing is due at ``at_ms``, or its definition is to be looked at again (hop 14)."""

    tenant: str
    schedule: str
    at_ms: int


class AttemptRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which attempt of how many, by which model; ``number`` counts from 1. Prices are pinned by the router."""

    number: int
    of: int
    model: str
    rank: Rank
    pool: str
    price: Price
    charge: Price
    plan: Plan = "single"


class RunAttempt(Message, frozen=True, kw_only=True):
    """The router asks a worker pool for one attempt (hop 2). ``history`` seals the conversation's earlier turns."""

    task: TaskRef
    attempt: AttemptRef
    prompt: Envelope
    sampling: Sampling
    prompt_bytes: int
    history: Envelope | None = None


class AttemptStarted(Message, frozen=True, kw_only=True):
    """A worker is about to call the model (hop 3): without an end, this is possible spend."""

    task: TaskRef
    attempt: AttemptRef
    delivery: int
    worker: str
    at_ms: int


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


class AttemptAnswered(Message, frozen=True, kw_only=True):
    """One member of a larger plan answered (hop 4). ``answer`` seals JSON: an ``Answer`` of content.py."""

    task: TaskRef
    attempt: AttemptRef
    answer: Envelope
    call: AttemptUsage
    at_ms: int
    turn: Envelope | None = None


class AttemptFailed(Message, frozen=True, kw_only=True):
    """One member of a larger plan ended without an answer (hop 4)."""

    task: TaskRef
    attempt: AttemptRef
    error: TaskError
    call: AttemptUsage
    at_ms: int


class AttemptDiscarded(Message, frozen=True, kw_only=True):
    """A finished call that another attempt or a cancellation had already overtaken: cost, and no charge."""

    task: TaskRef
    attempt: AttemptRef
    call: AttemptUsage
    at_ms: int


class TextCheckpointed(Message, frozen=True, kw_only=True):
    """The text of a streamed attempt so far, kept every other second; ``chunks`` is how many token chunks it covers."""

    task: TaskRef
    attempt: AttemptRef
    delivery: int
    chunks: int
    text: Envelope
    at_ms: int


class Settled(Message, frozen=True, kw_only=True):
    """What the three terminal messages share (hop 6).

    ``usage`` is the task's: all its attempts' tokens, their cost, and the charge. ``turn`` seals the messages that the
    client sent in this turn, present when the task belongs to a conversation.
    """

    task: TaskRef
    plan: Plan
    stop_reason: StopReason
    usage: Usage
    attempts: list[AttemptUsage]
    settled_at_ms: int
    model: str = ""
    rank: str = ""
    confidence: float | None = None


class TaskCompleted(Settled, frozen=True, kw_only=True):
    """The task has its answer; ``output`` seals JSON: :class:`collegium_contracts.content.Answer`."""

    output: Envelope
    turn: Envelope | None = None


class TaskFailed(Settled, frozen=True, kw_only=True):
    """The task ended without an answer; ``partial`` seals what had been produced."""

    error: TaskError
    partial: Envelope | None = None


class TaskCanceled(Settled, frozen=True, kw_only=True):
    """The task was canceled; what had been produced is in ``partial`` and billed."""

    partial: Envelope | None = None


class TokenChunk(Message, frozen=True, kw_only=True):
    """A piece of a streamed answer (hop 8, core NATS): ``number`` counts from 0 within one delivery of one attempt."""

    task_id: str
    attempt: int
    delivery: int
    number: int
    text: Envelope
    model: str = ""


class TaskAccepted(Message, frozen=True, kw_only=True):
    """The gateway promised a task to a client that does not wait (hop 9)."""

    task: TaskRef
    at_ms: int


class TaskDispatched(Message, frozen=True, kw_only=True):
    """The router handed a task's attempts to a worker pool (hop 9)."""

    task: TaskRef
    plan: Plan
    models: list[str]
    at_ms: int


class CancelRequested(Message, frozen=True, kw_only=True):
    """A client, or the gateway for a client that went away, wants a task ended (hop 10)."""

    task_id: str
    tenant: str
    at_ms: int
    reason: Literal["canceled", "client_disconnected"] = "canceled"


class DeadLetter(Message, frozen=True, kw_only=True):
    """A message that a service could not handle (hop 15): the original bytes, where they came from, and why."""

    service: str
    subject: str
    cause: str
    detail: str
    payload: bytes
    at_ms: int
    stream: str = ""
    sequence: int = 0
    delivery: int = 0
    headers: dict[str, str] = {}


SettledMessage = TaskCompleted | TaskFailed | TaskCanceled
AttemptEnded = AttemptAnswered | AttemptFailed
JourneyMessage = (
    TaskSubmitted
    | FireSchedule
    | RunAttempt
    | AttemptStarted
    | AttemptAnswered
    | AttemptFailed
    | AttemptDiscarded
    | TextCheckpointed
    | TaskCompleted
    | TaskFailed
    | TaskCanceled
    | TokenChunk
    | TaskAccepted
    | TaskDispatched
    | CancelRequested
    | DeadLetter
)
