"""Every message of the journey, as frozen tagged structs.

A message is a past-tense fact (``TaskSubmitted``) or an imperative (``RunAttempt``). On the wire it is a msgpack map
whose ``type`` is the struct's name; fields unknown to a reader pass, new fields have defaults, and ``v`` is the major
version, which a reader that does not know it refuses with a typed error (codec.py). Content stands in envelopes only.

Times are Unix milliseconds, absolute. Money is pico-dollars. One rule: a field is never renamed or given a new
meaning; the golden wire files hold us to it.
"""

from __future__ import annotations

from typing import Literal

from collegium_contracts.audit import AuditEntry
from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.feedback import Feedback
from collegium_contracts.holds import HoldsJournaled, HoldsSnapshot
from collegium_contracts.money import Usage
from collegium_contracts.notes import AttemptAsked, AttemptTested
from collegium_contracts.parts import (
    NOTHING_KNOWN,
    AttemptRef,
    AttemptUsage,
    Evidence,
    JudgeMode,
    LetterAbout,
    Plan,
    Rank,
    Sampling,
    TaskRef,
)
from collegium_contracts.people import Decision, InputSource, Question, Stage
from collegium_contracts.probes import ProbeCompared
from collegium_contracts.routing import Route

CacheMode = Literal["off", "exact", "use", "refresh"]
StopReason = Literal[
    "completed", "length", "tool_calls", "content_filter", "deadline", "canceled", "client_disconnected", "failed",
    "no_majority", "below_quality", "tests_failed", "tests_not_run", "gate", "answered_by_person", "denied", "expired",
]  # fmt: skip


class TaskSubmitted(Message, frozen=True, kw_only=True):
    """The gateway accepted a request (hop 1). ``prompt`` seals JSON: a list of chat messages, or of texts to embed.

    ``judge`` (none: nobody) is how a panel that stays undecided is judged; ``tests`` seals JSON, what code has to pass.
    """

    task: TaskRef
    prompt: Envelope
    sampling: Sampling
    prompt_bytes: int
    panel_size: int = 3
    judge: JudgeMode | None = None
    tests: Envelope | None = None


class FireSchedule(Message, frozen=True, kw_only=True):
    """A cron schedule's next firing is due at ``at_ms``, or its definition is to be looked at again (hop 14)."""

    tenant: str
    schedule: str
    at_ms: int


class RunAttempt(Message, frozen=True, kw_only=True):
    """The router asks a worker pool for one attempt (hop 2). ``history`` seals a conversation's earlier turns,
    ``notes`` what is told beside the client's instructions, ``instruction`` what an experiment puts before all else.

    ``try_number`` counts from 1, ``earlier`` holds calls that failed before, at most ``max_calls`` are made in all.
    ``alternatives``: another model could answer. ``route`` (none: the client named it) says why this one, for the end.
    """

    task: TaskRef
    attempt: AttemptRef
    prompt: Envelope
    sampling: Sampling
    prompt_bytes: int
    history: Envelope | None = None
    try_number: int = 1
    max_calls: int = 1
    alternatives: bool = False
    earlier: list[AttemptUsage] = []
    notes: list[Envelope] = []
    route: Route | None = None
    instruction: Envelope | None = None


class AttemptRequested(Message, frozen=True, kw_only=True):
    """The router is asked for an attempt (hop 5): what is to be run, and who asks.

    A worker hands an attempt back for another try: ``error`` says why it failed, and the router, which may choose
    another model, asks the same one again not before ``not_before_ms``. Consensus asks for one more attempt of a plan
    that it has not settled: then ``error`` is none, ``run.try_number`` is 0, ``run.attempt`` tells number, plan and
    (of a cascade) rank, and ``asked`` are the models that were asked before; the router chooses the model.
    """

    run: RunAttempt
    error: TaskError | None = None
    not_before_ms: int = 0
    asked: list[str] = []


class AttemptStarted(Message, frozen=True, kw_only=True):
    """A worker is about to call the model (hop 3): without an end, this is possible spend."""

    task: TaskRef
    attempt: AttemptRef
    delivery: int
    worker: str
    at_ms: int


class AttemptAnswered(Message, frozen=True, kw_only=True):
    """One member of a larger plan answered (hop 4). ``answer`` seals JSON: an ``Answer`` of content.py.

    ``logprob`` is the mean log-probability of its tokens, none where the endpoint was not asked or gave none.
    ``asked`` names the rules that want a person to look at it.
    """

    task: TaskRef
    attempt: AttemptRef
    answer: Envelope
    call: AttemptUsage
    at_ms: int
    turn: Envelope | None = None
    earlier: list[AttemptUsage] = []
    asked: list[str] = []
    route: Route | None = None
    logprob: float | None = None


class AttemptFailed(Message, frozen=True, kw_only=True):
    """One member of a larger plan ended without an answer (hop 4); ``earlier`` holds the calls of its earlier tries."""

    task: TaskRef
    attempt: AttemptRef
    error: TaskError
    call: AttemptUsage
    at_ms: int
    earlier: list[AttemptUsage] = []
    route: Route | None = None


class AttemptRetried(Message, frozen=True, kw_only=True):
    """A try failed and the attempt goes back to the router (hop 4); ``call`` is none where nothing was called."""

    task: TaskRef
    attempt: AttemptRef
    try_number: int
    error: TaskError
    not_before_ms: int
    at_ms: int
    call: AttemptUsage | None = None


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
    client sent in this turn, present when the task belongs to a conversation or may be learned from. ``route`` says why
    the model of a plan of one attempt was chosen; larger plans' attempts have their own, the first's where the plan is
    tried. ``evidence`` (none: of one attempt) is what the confidence rests on.
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
    route: Route | None = None
    evidence: Evidence | None = None


class TaskCompleted(Settled, frozen=True, kw_only=True):
    """The task has its answer; ``output`` seals JSON: :class:`collegium_contracts.content.Answer`."""

    output: Envelope
    turn: Envelope | None = None


class AnswersReused(Message, frozen=True, kw_only=True):
    """Chats that a gateway answered from its cache (hop 16): their outputs are empty, the originals have them.

    ``traces`` are those of the chats, in the same order.
    """

    answers: list[TaskCompleted]
    traces: list[str] = []


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
    """The gateway promised a task to a client that does not wait (hop 9).

    ``callback`` seals the URL to be called when the task settles; ``callback_receiver`` is the same for callbacks of
    one tenant to one server, and tells nothing else.
    """

    task: TaskRef
    at_ms: int
    callback: Envelope | None = None
    callback_receiver: str = ""


class TaskDispatched(Message, frozen=True, kw_only=True):
    """The router handed a task's attempts to a worker pool (hop 9).

    Of a plan of several attempts it is told before any of them, and says all that later ones are made from:
    ``submitted`` is what the task began with, ``history``, ``notes`` and ``added_bytes`` what was looked up for it,
    ``of`` how many attempts it may make (``models`` are those of the first), ``ranks`` whose each of a cascade's is.
    """

    task: TaskRef
    plan: Plan
    models: list[str]
    at_ms: int
    submitted: TaskSubmitted | None = None
    history: Envelope | None = None
    notes: list[Envelope] = []
    added_bytes: int = 0
    of: int = 0
    ranks: list[Rank] = []


class InputRequired(Message, frozen=True, kw_only=True):
    """A task waits for people (hop 9), create-once for each stage: before it begins, or before its answer leaves.

    ``submitted`` is what it is made from (the prompt that people read), ``verdict`` how it settles where they agree:
    none before it has begun. It expires at ``expires_at_ms``; the money held for it is held until ``hold_until_ms``.
    """

    task: TaskRef
    stage: Stage
    questions: list[Question]
    at_ms: int
    expires_at_ms: int
    hold_until_ms: int = 0
    submitted: TaskSubmitted | None = None
    verdict: TaskCompleted | None = None


class TaskInput(Message, frozen=True, kw_only=True):
    """Somebody answered one question about a task (hop 10), create-once for each question.

    ``by`` is the public id of the key that told it (empty: the clock), ``source`` as whom. ``answer`` seals JSON: an
    ``Answer`` of content.py, where the decision is ``answer``; ``comment`` seals text.
    """

    tenant: str
    task_id: str
    question: str
    decision: Decision
    source: InputSource
    at_ms: int
    by: str = ""
    queue: str = ""
    answer: Envelope | None = None
    comment: Envelope | None = None


class CancelRequested(Message, frozen=True, kw_only=True):
    """A client, or the gateway for a client that went away, wants a task ended (hop 10)."""

    task_id: str
    tenant: str
    at_ms: int
    reason: Literal["canceled", "client_disconnected"] = "canceled"


class WorkerCapacity(Message, frozen=True, kw_only=True):
    """A worker says how many attempts of a pool it can run at a time and how full it is (core NATS, every second or
    two); ``memory_ratio`` is the share of its memory that is in use, 0 where it cannot tell."""

    pool: str
    worker: str
    slots: int
    running: int
    memory_ratio: float = 0.0


class DeadLetter(Message, frozen=True, kw_only=True):
    """A message that a service could not handle (hop 15): the original bytes, where they came from, and why.

    A task that ended as failed leaves a letter of the cause ``task_failed``, whose original is what it can be run again
    from. ``about`` is absent in letters of earlier versions.
    """

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
    about: LetterAbout | None = None

    @property
    def known(self) -> LetterAbout:
        """What could be told of the original."""
        return self.about or NOTHING_KNOWN


SettledMessage = TaskCompleted | TaskFailed | TaskCanceled
AttemptEnded = AttemptAnswered | AttemptFailed
JourneyMessage = (
    TaskSubmitted
    | FireSchedule
    | RunAttempt
    | AttemptRequested
    | AttemptAsked
    | AttemptStarted
    | AttemptAnswered
    | AttemptFailed
    | AttemptTested
    | AttemptRetried
    | AttemptDiscarded
    | TextCheckpointed
    | TaskCompleted
    | TaskFailed
    | TaskCanceled
    | AnswersReused
    | TokenChunk
    | TaskAccepted
    | TaskDispatched
    | InputRequired
    | TaskInput
    | CancelRequested
    | Feedback
    | ProbeCompared
    | WorkerCapacity
    | DeadLetter
    | HoldsJournaled
    | HoldsSnapshot
    | AuditEntry
)
