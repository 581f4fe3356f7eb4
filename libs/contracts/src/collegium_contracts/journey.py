"""The journey of a task, as data.

``HOPS`` says which message goes from which service to which, over which subject, kept where. Streams, consumers,
permissions, the topology test and docs/journey.md are derived from it or checked against it. One rule: what is not in
this table does not travel.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collegium_contracts import subjects as s

Service = Literal["gateway", "router", "worker-pool", "context", "consensus", "evolution", "billing"]
SERVICES: Final[tuple[Service, ...]] = (
    "gateway", "router", "worker-pool", "context", "consensus", "evolution", "billing",
)  # fmt: skip

DAY_SECONDS: Final = 86_400


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the journey. ``stream`` none means core NATS; ``create_once`` means at most one message a subject.

    Where there are no senders the broker itself stores the message, from a schedule.
    """

    number: int
    subject: str
    filter: str
    messages: tuple[str, ...]
    senders: tuple[Service, ...]
    receivers: tuple[Service, ...]
    stream: str | None
    note: str
    create_once: bool = False


HOPS: Final[tuple[Hop, ...]] = (
    Hop(
        number=1, subject="task.submitted.<priority>.<shard>.<tenant>", filter=s.TASK_SUBMITTED_ALL,
        messages=("TaskSubmitted",), senders=("gateway", "router"), receivers=("router",), stream=s.INGRESS,
        note="the shard's owner removes what it has dispatched",
    ),
    Hop(
        number=2, subject="work.<pool>.<priority>", filter=s.WORK_ALL,
        messages=("RunAttempt",), senders=("router", "gateway"), receivers=("worker-pool",), stream=s.WORK,
        note="small, so that decisions are late; from the gateway only what an operator requeues",
    ),
    Hop(
        number=3, subject="attempt.<tenant>.<task>.<n>.started.<delivery>", filter=s.ATTEMPT_STARTED_ALL,
        messages=("AttemptStarted",), senders=("worker-pool",), receivers=("billing",), stream=s.EVENTS,
        create_once=True, note="without an end it is possible spend",
    ),
    Hop(
        number=4, subject="attempt.<tenant>.<task>.<n>.ended", filter=s.ATTEMPT_ENDED_ALL,
        messages=("AttemptAnswered", "AttemptFailed"), senders=("worker-pool", "router"),
        receivers=("consensus", "billing", "evolution", "router"), stream=s.EVENTS, create_once=True,
        note="only for plans of several attempts; a plan of one settles straight away",
    ),
    Hop(
        number=4, subject="attempt.<tenant>.<task>.<n>.retried.<try>", filter=s.ATTEMPT_RETRIED_ALL,
        messages=("AttemptRetried",), senders=("worker-pool",), receivers=("billing", "router"), stream=s.EVENTS,
        create_once=True, note="a try failed; the attempt goes back to the router by the next hop",
    ),
    Hop(
        number=4, subject="attempt.<tenant>.<task>.<n>.discarded.<delivery>", filter=s.ATTEMPT_DISCARDED_ALL,
        messages=("AttemptDiscarded",), senders=("worker-pool",), receivers=("billing", "evolution", "router"),
        stream=s.EVENTS,
        create_once=True, note="a finished call that settled nothing: cost, no charge",
    ),
    Hop(
        number=4, subject="attempt.<tenant>.<task>.<n>.asked", filter=s.ATTEMPT_ASKED_ALL,
        messages=("AttemptAsked",), senders=("consensus",), receivers=("billing",), stream=s.EVENTS,
        create_once=True, note="a plan of several is not settled yet, and why; the next hop asks for the attempt",
    ),
    Hop(
        number=4, subject="attempt.<tenant>.<task>.<n>.tested", filter=s.ATTEMPT_TESTED_ALL,
        messages=("AttemptTested",), senders=("consensus",), receivers=("consensus", "billing"), stream=s.EVENTS,
        create_once=True, note="an answer was run against its task's tests: only then it counts as ended",
    ),
    Hop(
        number=5, subject="task.more.<priority>.<shard>.<tenant>", filter=s.TASK_MORE_ALL,
        messages=("AttemptRequested",), senders=("worker-pool", "consensus"), receivers=("router",), stream=s.INGRESS,
        note="another try, or a plan's next attempt, in the queue of the tenant's shard",
    ),
    Hop(
        number=6, subject="task.settled.<tenant>.<task>", filter=s.TASK_SETTLED_ALL,
        messages=("TaskCompleted", "TaskFailed", "TaskCanceled"), senders=("worker-pool", "consensus", "router"),
        receivers=("billing", "context", "evolution", "gateway", "router"), stream=s.EVENTS, create_once=True,
        note="the one terminal message of a task",
    ),
    Hop(
        number=7, subject="done.<replica>.<task>", filter=s.DONE_ALL,
        messages=("TaskCompleted", "TaskFailed", "TaskCanceled", "InputRequired"),
        senders=("worker-pool", "consensus", "router"), receivers=("gateway",), stream=None,
        note="the settled message again, or that people are asked first, after its acknowledgement",
    ),
    Hop(
        number=8, subject="token.<tenant>.<task>", filter=s.TOKENS_ALL,
        messages=("TokenChunk",), senders=("worker-pool",), receivers=("gateway",), stream=None,
        note="numbered; the durable result heals a gap",
    ),
    Hop(
        number=8, subject="attempt.<tenant>.<task>.<n>.checkpoint", filter=s.ATTEMPT_CHECKPOINT_ALL,
        messages=("TextCheckpointed",), senders=("worker-pool",), receivers=("billing",), stream=s.EVENTS,
        note="the text so far, every second or two of a stream",
    ),
    Hop(
        number=9, subject="task.changed.<tenant>.<task>", filter=s.TASK_STATES_ALL,
        messages=("TaskAccepted", "TaskDispatched"), senders=("gateway", "router", "worker-pool"),
        receivers=("gateway",), stream=s.EVENTS,
        note="for tasks nobody waits for, and plans of several attempts; a plan of one is told of by its worker, where"
        " it takes longer than a moment",
    ),
    Hop(
        number=9, subject="task.changed.<tenant>.<task>.<stage>", filter=s.TASK_PAUSED_ALL,
        messages=("InputRequired",), senders=("gateway", "consensus"), receivers=("gateway", "billing"),
        stream=s.EVENTS, create_once=True, note="a task waits for people, before it begins or before its answer leaves",
    ),
    Hop(
        number=10, subject="task.input.<tenant>.<task>.<question>", filter=s.TASK_INPUT_ALL,
        messages=("TaskInput",), senders=("gateway",), receivers=("consensus", "gateway", "billing"), stream=s.EVENTS,
        create_once=True, note="the first answer to a question stands, whoever gives it",
    ),
    Hop(
        number=10, subject="ctl.cancel.<tenant>.<task>", filter=s.CANCEL_ALL,
        messages=("CancelRequested",), senders=("gateway",), receivers=("router", "worker-pool", "consensus"),
        stream=s.EVENTS, note="whoever holds the task settles it",
    ),
    Hop(
        number=10, subject="capacity.<pool>.<worker>", filter=s.CAPACITY_ALL,
        messages=("WorkerCapacity",), senders=("worker-pool",), receivers=("router",), stream=None,
        note="how much a worker can take; no more is dispatched",
    ),
    Hop(
        number=11, subject="ledger.journal.<shard>", filter=s.LEDGER_JOURNAL_ALL, messages=("HoldsJournaled",),
        senders=("billing",), receivers=("billing",), stream=s.LEDGER,
        note="written by expected sequence before a hold is granted; a former owner's record is refused",
    ),
    Hop(
        number=11, subject="ledger.snapshot.<shard>", filter=s.LEDGER_SNAPSHOT_ALL, messages=("HoldsSnapshot",),
        senders=("billing",), receivers=("billing",), stream=s.LEDGER, note="where a new owner begins to read",
    ),
    Hop(
        number=12, subject="feedback.<tenant>.<task>", filter=s.FEEDBACK_ALL, messages=("Feedback",),
        senders=("gateway", "consensus"), receivers=("evolution", "billing"), stream=s.EVENTS,
        note="what became of an answer; of one source the last word counts",
    ),
    Hop(
        number=12, subject="probe.<tenant>.<task>", filter=s.PROBES_ALL, messages=("ProbeCompared",),
        senders=("consensus",), receivers=("evolution", "billing"), stream=s.EVENTS, create_once=True,
        note="settled work was asked again; the task in the subject is the one that asked",
    ),
    Hop(
        number=13, subject="audit.<tenant>", filter=s.AUDIT_ALL, messages=("AuditEntry",), senders=SERVICES,
        receivers=("billing",), stream=s.AUDIT, note="one sealer chains them by tenant, in the order of the stream",
    ),
    Hop(
        number=14, subject="schedule.task.<tenant>.<task>", filter=s.SCHEDULE_TASK_ALL, messages=("TaskSubmitted",),
        senders=("gateway", "router", "consensus"), receivers=("router",), stream=s.SCHEDULE,
        note="waits for its time, or is released by whoever approved it; canceled, the router removes it",
    ),
    Hop(
        number=14, subject="schedule.cron.<tenant>.<schedule>", filter=s.SCHEDULE_CRON_ALL, messages=("FireSchedule",),
        senders=("gateway", "router"), receivers=("router",), stream=s.SCHEDULE, note="the next firing, one a schedule",
    ),
    Hop(
        number=14, subject="schedule.due.<shard>", filter=s.SCHEDULE_DUE_ALL,
        messages=("TaskSubmitted", "FireSchedule"), senders=(), receivers=("router",), stream=s.SCHEDULE,
        note="moved here by the broker when due; any router releases it to INGRESS, then acknowledges",
    ),
    Hop(
        number=15, subject="dead.<service>.<tenant>", filter=s.DEAD_ALL,
        messages=("DeadLetter",), senders=SERVICES, receivers=(), stream=s.DEAD,
        note="original bytes and cause, for the operator",
    ),
    Hop(
        number=16, subject="reused.<replica>", filter=s.REUSED_ALL, messages=("AnswersReused",), senders=("gateway",),
        receivers=("billing", "gateway"), stream=s.EVENTS, note="at most one a second of a gateway, whatever it reuses",
    ),
    Hop(
        number=15, subject="again.<durable>.<letter>.<subject>", filter=s.AGAIN_ALL,
        messages=(
            "AttemptStarted", "AttemptAsked", "AttemptAnswered", "AttemptFailed", "AttemptTested",
            "AttemptDiscarded",
            "TextCheckpointed", "TaskCompleted", "TaskFailed", "TaskCanceled", "TaskAccepted", "TaskDispatched",
            "InputRequired", "TaskInput", "CancelRequested", "AnswersReused", "Feedback",
            "ProbeCompared",
        ),
        senders=("gateway",), receivers=("gateway", "context", "consensus", "evolution", "billing"), stream=s.EVENTS,
        create_once=True, note="a requeued letter: the original message, to the one consumer that had buried it",
    ),
)  # fmt: skip


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request–reply edge (core NATS)."""

    subject: str
    asker: tuple[Service, ...]
    answerer: Service


ASKS: Final[tuple[Ask, ...]] = (
    Ask(subject=s.SVC_CONTEXT_ALL, asker=("router",), answerer="context"),
    Ask(subject=s.SVC_KNOWLEDGE_ALL, asker=("gateway",), answerer="context"),
    Ask(subject=s.SVC_MEMORY_ALL, asker=("gateway",), answerer="context"),
    Ask(subject=s.SVC_LIKENESS_ALL, asker=("gateway",), answerer="context"),
    Ask(subject=s.SVC_EMBED_ALL, asker=("worker-pool", "consensus", "evolution"), answerer="context"),
    Ask(subject=s.SVC_BILLING_ALL, asker=("gateway",), answerer="billing"),
    Ask(subject=s.SVC_HOLDS_ALL, asker=("gateway", "router", "billing"), answerer="billing"),
    Ask(subject=s.SVC_ROUTER_PRICE, asker=("gateway",), answerer="router"),
    Ask(subject=s.SVC_ROUTER_MODEL, asker=("gateway", "evolution"), answerer="router"),
    Ask(subject=s.SVC_GATEWAY_JUDGE, asker=("worker-pool",), answerer="gateway"),
    Ask(subject=s.SVC_ROUTER_STUDENT, asker=("evolution",), answerer="router"),
    Ask(subject=s.SVC_ROUTER_ROSTER, asker=("gateway", "evolution"), answerer="router"),
    Ask(subject=s.SVC_WORKERS_PROBE_ALL, asker=("router",), answerer="worker-pool"),
    Ask(subject=s.SVC_EVOLUTION_ALL, asker=("gateway",), answerer="evolution"),
    Ask(subject=s.SVC_ROUTER_QUEUE_ALL, asker=("gateway", "billing"), answerer="router"),
    Ask(subject=s.SVC_ROUTER_PROBES_ALL, asker=("evolution",), answerer="router"),
    Ask(subject=s.SVC_VECTORS_ALL, asker=("context",), answerer="context"),
)


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it is declared. ``max_bytes`` is per server; the sum over all streams must fit the disk's limit.

    ``schedules``: a message may name the time at which the broker moves it to another subject of the stream.
    """

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "workqueue"]
    discard: Literal["new", "old"]
    max_bytes: int
    max_age_seconds: int = 0
    max_messages_per_subject: int = -1
    discard_new_per_subject: bool = False
    duplicate_window_seconds: int = 120
    schedules: bool = False
    note: str = ""


MB: Final = 1024 * 1024

STREAMS: Final[tuple[Stream, ...]] = (
    Stream(
        name=s.INGRESS, subjects=(s.TASK_SUBMITTED_ALL, s.TASK_MORE_ALL), retention="limits", discard="new",
        max_bytes=1024 * MB, max_messages_per_subject=10_000, discard_new_per_subject=True,
        note="10,000 queued tasks a tenant and priority; the next one is refused and answered 429",
    ),
    Stream(
        name=s.WORK, subjects=(s.WORK_ALL,), retention="workqueue", discard="new", max_bytes=512 * MB,
        max_messages_per_subject=1_024, discard_new_per_subject=True,
        note="1,024 dispatched attempts a pool and priority; the router keeps the rest",
    ),
    Stream(
        name=s.EVENTS,
        subjects=(
            "attempt.>", s.TASK_SETTLED_ALL, s.TASK_CHANGED_ALL, s.TASK_INPUT_ALL, s.CANCEL_ALL, s.FEEDBACK_ALL,
            s.PROBES_ALL, s.REUSED_ALL, s.AGAIN_ALL,
        ),
        retention="limits", discard="old", max_bytes=4096 * MB, max_age_seconds=3 * DAY_SECONDS,
        note="discard old: no full stream may stop settlement; an alarm watches the archiver's lag",
    ),
    Stream(
        name=s.LEDGER, subjects=(s.LEDGER_JOURNAL_ALL, s.LEDGER_SNAPSHOT_ALL), retention="limits", discard="old",
        max_bytes=1024 * MB, max_age_seconds=3 * DAY_SECONDS,
        note="discard old: snapshots are newer than what is thrown away; billing archives the journal",
    ),
    Stream(
        name=s.DEAD, subjects=(s.DEAD_ALL,), retention="limits", discard="new", max_bytes=256 * MB,
        note="kept until an operator decides",
    ),
    Stream(
        name=s.ADVISORIES, subjects=(s.MAX_DELIVERIES_ALL,), retention="limits", discard="old", max_bytes=32 * MB,
        max_age_seconds=7 * DAY_SECONDS,
        note="the broker's word that a message is delivered no more; swept by the worker pool",
    ),
    Stream(
        name=s.SCHEDULE, subjects=(s.SCHEDULE_TASK_ALL, s.SCHEDULE_CRON_ALL, s.SCHEDULE_DUE_ALL),
        retention="workqueue", discard="old", max_bytes=1024 * MB, max_age_seconds=35 * DAY_SECONDS, schedules=True,
        note="schedules exclude discard new: the gateway refuses what would fill it; nothing waits longer than 30 days",
    ),
    Stream(
        name=s.AUDIT, subjects=(s.AUDIT_ALL,), retention="limits", discard="new", max_bytes=512 * MB,
        max_messages_per_subject=200_000, discard_new_per_subject=True,
        note="holds what is not sealed yet, as long as it takes; full, it refuses new entries, and who made them knows",
    ),
)  # fmt: skip


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A key–value bucket: who writes it, who reads it, and after how many seconds a value expires (0: never).

    A full one refuses what is new, or lets go of what is oldest (``discard``).
    ``history`` values of a key stand; of an ``is_erasable`` bucket its writers may overwrite a single one on disk.
    """

    name: str
    writers: tuple[Service, ...]
    readers: tuple[Service, ...]
    ttl_seconds: float = 0
    max_bytes: int = 64 * MB
    discard: Literal["new", "old"] = "new"
    history: int = 1
    is_erasable: bool = False


BUCKETS: Final[tuple[Bucket, ...]] = (
    Bucket(name=s.KV_TENANTS, writers=("billing",), readers=("gateway",)),
    Bucket(name=s.KV_MODELS, writers=("router",), readers=("gateway", "worker-pool", "evolution", "billing")),
    # Where added models are; the roster's readers need not know.
    Bucket(name=s.KV_ENDPOINTS, writers=("router",), readers=("router", "worker-pool"), max_bytes=16 * MB),
    Bucket(name=s.KV_POLICY, writers=("evolution",), readers=("router", "gateway", "consensus"), max_bytes=256 * MB),
    Bucket(name=s.KV_OWNERS, writers=("router",), readers=("router",)),
    Bucket(name=s.KV_HOLDERS, writers=("billing",), readers=("billing",)),
    Bucket(name=s.KV_PERMITS, writers=("router",), readers=("router",)),
    Bucket(name=s.KV_BREAKERS, writers=("worker-pool",), readers=("worker-pool", "router", "gateway")),
    Bucket(name=s.KV_QUOTAS, writers=("router",), readers=("router", "gateway")),
    # A value a shard: what learning may still cost, and debts against targets.
    Bucket(name=s.KV_SPENDING, writers=("router",), readers=("router",), max_bytes=16 * MB),
    # Some three million keys a day; beyond it a request with a key is refused, and one without goes on.
    Bucket(
        name=s.KV_IDEMPOTENCY, writers=("gateway",), readers=("gateway",), ttl_seconds=DAY_SECONDS, max_bytes=1024 * MB
    ),
    Bucket(name=s.KV_SCHEDULES, writers=("gateway", "router"), readers=("gateway", "router"), max_bytes=256 * MB),
    # Some two hundred thousand answers; whoever reads one looks at its age, a week is only when the broker forgets it.
    Bucket(
        name=s.KV_CACHE,
        writers=("gateway",),
        readers=("gateway",),
        ttl_seconds=7 * DAY_SECONDS,
        max_bytes=256 * MB,
        discard="old",
    ),
    # Some two hundred thousand vectors of the bundled embedder; one that is gone is computed again.
    Bucket(
        name=s.KV_EMBEDDINGS,
        writers=("context",),
        readers=("context",),
        ttl_seconds=7 * DAY_SECONDS,
        max_bytes=256 * MB,
        discard="old",
    ),
    # Wrapped keys only. Old values are erased one by one, so that a destroyed key is on no disk.
    Bucket(
        name=s.KV_DATAKEYS,
        writers=("gateway",),
        readers=("worker-pool", "context", "consensus", "evolution"),
        history=8,
        is_erasable=True,
    ),
    Bucket(name=s.KV_GATES, writers=("gateway",), readers=("worker-pool",), max_bytes=16 * MB),
    Bucket(name=s.KV_STORAGE, writers=("gateway", "context"), readers=("billing",)),
    Bucket(name=s.KV_ERASURES, writers=("gateway", "router", "context", "evolution", "billing"), readers=()),
)


def hops_between(sender: str, receiver: str) -> tuple[Hop, ...]:
    """Returns the hops that go from one service to another."""
    return tuple(hop for hop in HOPS if sender in hop.senders and receiver in hop.receivers)


def template(message: str, *, stored: bool = True) -> str:
    """Returns the subject template on which a message travels, for span attributes and pages.

    ``stored`` chooses between the stored hop and the core one where a message has both (settled, then done).
    """
    for hop in HOPS:
        if message in hop.messages and (hop.stream is not None) == stored:
            return hop.subject
    raise KeyError(message)
