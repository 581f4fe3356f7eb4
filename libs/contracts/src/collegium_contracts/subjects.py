"""Every subject, stream, durable, bucket and header name. No other module writes one as a literal.

Builders make concrete subjects; ``..._ALL`` are readers' filters. Tokens are ids checked by ids.py, never model names:
a tenant's once more by every builder, whoever let it in.
"""

from __future__ import annotations

import hashlib
from typing import Final

from collegium_contracts.audit import PLATFORM
from collegium_contracts.event_subjects import EventSubject as EventSubject  # noqa: PLC0414 - handed on
from collegium_contracts.event_subjects import events_of_task as events_of_task  # noqa: PLC0414 - handed on
from collegium_contracts.event_subjects import parse_event as parse_event  # noqa: PLC0414 - handed on
from collegium_contracts.ids import TENANT_ID, tenant_token
from collegium_contracts.key_names import *  # noqa: F403 - handed on
from collegium_contracts.learning_subjects import *  # noqa: F403 - handed on
from collegium_contracts.people_subjects import *  # noqa: F403 - handed on
from collegium_contracts.roster_subjects import *  # noqa: F403 - handed on

# Streams
INGRESS: Final = "INGRESS"
WORK: Final = "WORK"
EVENTS: Final = "EVENTS"
DEAD: Final = "DEAD"
ADVISORIES: Final = "ADVISORIES"
SCHEDULE: Final = "SCHEDULE"
LEDGER: Final = "LEDGER"
AUDIT: Final = "AUDIT"

# Key–value buckets and the object store for claim checks
KV_TENANTS: Final = "tenants"
KV_MODELS: Final = "models"
KV_POLICY: Final = "policy"
KV_OWNERS: Final = "owners"
KV_HOLDERS: Final = "holders"
KV_PERMITS: Final = "permits"
KV_BREAKERS: Final = "breakers"
KV_IDEMPOTENCY: Final = "idempotency"
KV_SCHEDULES: Final = "schedules"
KV_QUOTAS: Final = "quotas"
KV_SPENDING: Final = "spending"
KV_CACHE: Final = "cache"
KV_EMBEDDINGS: Final = "embeddings"
KV_DATAKEYS: Final = "datakeys"
KV_ERASURES: Final = "erasures"
KV_STORAGE: Final = "storage"
KV_GATES: Final = "gates"
ROSTER_KEY: Final = "roster"
SCOREBOARD_KEY: Final = "scoreboard"
WINDOWS_KEY: Final = "windows"
CLAIMS_BUCKET: Final = "claims"
UPLOADS_BUCKET: Final = "uploads"
STUDENTS_BUCKET: Final = "students"

# Headers
TRACEPARENT: Final = "traceparent"
MESSAGE_ID: Final = "Nats-Msg-Id"
EXPECTED_LAST_SUBJECT_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"
SCHEDULE_PATTERN: Final = "Nats-Schedule"
SCHEDULE_TARGET: Final = "Nats-Schedule-Target"
KV_OPERATION: Final = "KV-Operation"
H_TENANT: Final = "Collegium-Tenant"
H_TASK: Final = "Collegium-Task"
H_ATTEMPT: Final = "Collegium-Attempt"
H_TRY: Final = "Collegium-Try"
H_MODEL: Final = "Collegium-Model"
H_POOL: Final = "Collegium-Pool"
H_BOUND: Final = "Collegium-Bound"
H_CALL: Final = "Collegium-Call"
H_CLAIM: Final = "Collegium-Claim"
H_BILLED: Final = "Collegium-Billed"
H_HOLD_UNTIL: Final = "Collegium-Hold-Until"
H_TESTS_UNTIL: Final = "Collegium-Tests-Until"

# Filters
TASK_SUBMITTED_ALL: Final = "task.submitted.>"
TASK_MORE_ALL: Final = "task.more.>"
TASK_SETTLED_ALL: Final = "task.settled.>"
TASK_CHANGED_ALL: Final = "task.changed.>"
TASK_STATES_ALL: Final = "task.changed.*.*"
TASK_PAUSED_ALL: Final = "task.changed.*.*.*"
TASK_INPUT_ALL: Final = "task.input.>"
WORK_ALL: Final = "work.>"
ATTEMPT_ALL: Final = "attempt.>"
ATTEMPT_STARTED_ALL: Final = "attempt.*.*.*.started.*"
ATTEMPT_ENDED_ALL: Final = "attempt.*.*.*.ended"
ATTEMPT_RETRIED_ALL: Final = "attempt.*.*.*.retried.*"
ATTEMPT_ASKED_ALL: Final = "attempt.*.*.*.asked"
ATTEMPT_TESTED_ALL: Final = "attempt.*.*.*.tested"
ATTEMPT_DISCARDED_ALL: Final = "attempt.*.*.*.discarded.*"
ATTEMPT_CHECKPOINT_ALL: Final = "attempt.*.*.*.checkpoint"
CANCEL_ALL: Final = "ctl.cancel.>"
FEEDBACK_ALL: Final = "feedback.>"
REUSED_ALL: Final = "reused.>"
DEAD_ALL: Final = "dead.>"
AGAIN_ALL: Final = "again.>"
AUDIT_ALL: Final = "audit.*"
SCHEDULE_TASK_ALL: Final = "schedule.task.>"
SCHEDULE_CRON_ALL: Final = "schedule.cron.>"
SCHEDULE_DUE_ALL: Final = "schedule.due.>"
TOKENS_ALL: Final = "token.>"
DONE_ALL: Final = "done.>"
CAPACITY_ALL: Final = "capacity.>"
LEDGER_JOURNAL_ALL: Final = "ledger.journal.*"
LEDGER_SNAPSHOT_ALL: Final = "ledger.snapshot.*"

# Request–reply
SVC_CONTEXT_TURNS: Final = "svc.context.turns"
SVC_KNOWLEDGE_DOCUMENT_ADD: Final = "svc.knowledge.document.add"
SVC_KNOWLEDGE_DOCUMENT_GET: Final = "svc.knowledge.document.get"
SVC_KNOWLEDGE_DOCUMENT_LIST: Final = "svc.knowledge.document.list"
SVC_KNOWLEDGE_DOCUMENT_DELETE: Final = "svc.knowledge.document.delete"
SVC_KNOWLEDGE_SEARCH: Final = "svc.knowledge.search"
SVC_KNOWLEDGE_PROFILE_SET: Final = "svc.knowledge.profile.set"
SVC_KNOWLEDGE_PROFILE_GET: Final = "svc.knowledge.profile.get"
SVC_KNOWLEDGE_VERSION: Final = "svc.knowledge.version"
SVC_KNOWLEDGE_GENERATIONS: Final = "svc.knowledge.generations"
SVC_CONTEXT_RECALL: Final = "svc.context.recall"
SVC_MEMORY_ADD: Final = "svc.memory.add"
SVC_MEMORY_CORRECT: Final = "svc.memory.correct"
SVC_MEMORY_RECALL: Final = "svc.memory.recall"
SVC_MEMORY_FORGET: Final = "svc.memory.forget"
SVC_MEMORY_EXPLAIN: Final = "svc.memory.explain"
SVC_MEMORY_LIST: Final = "svc.memory.list"
SVC_MEMORY_PATH_SET: Final = "svc.memory.path.set"
SVC_MEMORY_PATH_LIST: Final = "svc.memory.path.list"
SVC_MEMORY_GRANT_ADD: Final = "svc.memory.grant.add"
SVC_MEMORY_GRANT_LIST: Final = "svc.memory.grant.list"
SVC_MEMORY_GRANT_REVOKE: Final = "svc.memory.grant.revoke"
SVC_MEMORY_SHARED_PUT: Final = "svc.memory.shared.put"
SVC_MEMORY_SHARED_GET: Final = "svc.memory.shared.get"
SVC_MEMORY_SHARED_VERSIONS: Final = "svc.memory.shared.versions"
SVC_MEMORY_SHARED_LIST: Final = "svc.memory.shared.list"
SVC_MEMORY_CONVERSATION_LIST: Final = "svc.memory.conversation.list"
SVC_MEMORY_CONVERSATION_GET: Final = "svc.memory.conversation.get"
SVC_MEMORY_CONVERSATION_FORGET: Final = "svc.memory.conversation.forget"
SVC_LIKENESS_LOOK: Final = "svc.likeness.look"
SVC_LIKENESS_KEEP: Final = "svc.likeness.keep"
SVC_LIKENESS_FORGET: Final = "svc.likeness.forget"
SVC_LIKENESS_STATS: Final = "svc.likeness.stats"
SVC_EMBED_TEXTS: Final = "svc.embed.texts"
SVC_BILLING_USAGE: Final = "svc.billing.usage"
SVC_BILLING_POSSIBLE_SPEND: Final = "svc.billing.possible-spend"
SVC_BILLING_REQUESTS: Final = "svc.billing.requests"
SVC_BILLING_INVOICE_MAKE: Final = "svc.billing.invoice.make"
SVC_BILLING_INVOICE_LIST: Final = "svc.billing.invoice.list"
SVC_BILLING_TENANT_CREATE: Final = "svc.billing.tenant.create"
SVC_BILLING_TENANT_LIST: Final = "svc.billing.tenant.list"
SVC_BILLING_KEY_CREATE: Final = "svc.billing.key.create"
SVC_BILLING_KEY_REVOKE: Final = "svc.billing.key.revoke"
SVC_BILLING_KEY_LIST: Final = "svc.billing.key.list"
SVC_BILLING_KEY_ROTATE: Final = "svc.billing.key.rotate"
SVC_BILLING_KEYS_USED: Final = "svc.billing.keys.used"
SVC_BILLING_TENANT_CHANGE: Final = "svc.billing.tenant.change"
SVC_BILLING_PROJECT_CREATE: Final = "svc.billing.project.create"
SVC_BILLING_PROJECT_ARCHIVE: Final = "svc.billing.project.archive"
SVC_BILLING_PROJECT_LIST: Final = "svc.billing.project.list"
SVC_BILLING_LIMITS_SET: Final = "svc.billing.limits.set"
SVC_BILLING_BUDGET_SET: Final = "svc.billing.budget.set"
SVC_BILLING_BUDGET_DELETE: Final = "svc.billing.budget.delete"
SVC_BILLING_BUDGET_LIST: Final = "svc.billing.budget.list"
SVC_BILLING_AUDIT_READ: Final = "svc.billing.audit.read"
SVC_BILLING_AUDIT_PROOF: Final = "svc.billing.audit.proof"
SVC_BILLING_AUDIT_VERIFY: Final = "svc.billing.audit.verify"
SVC_BILLING_LEDGER_AUDIT: Final = "svc.billing.ledger.audit"
SVC_BILLING_LEDGER_CORRECT: Final = "svc.billing.ledger.correct"
SVC_BILLING_LEDGER_CALLS: Final = "svc.billing.ledger.calls"
SVC_BILLING_PRICES: Final = "svc.billing.prices"
SVC_ROUTER_PRICE: Final = "svc.router.price"
SVC_ROUTER_QUEUE_ALL: Final = "svc.router.queue.*"
SVC_CONTEXT_ALL: Final = "svc.context.>"
SVC_KNOWLEDGE_ALL: Final = "svc.knowledge.>"
SVC_MEMORY_ALL: Final = "svc.memory.>"
SVC_LIKENESS_ALL: Final = "svc.likeness.*"
SVC_EMBED_ALL: Final = "svc.embed.*"
SVC_BILLING_ALL: Final = "svc.billing.>"
SVC_HOLDS_ALL: Final = "svc.holds.*"
SVC_VECTORS_ALL: Final = "svc.vectors.*"


def svc_vectors(verb: str) -> str:
    """Subject of a question to the process that owns the embedded vector store."""
    return f"svc.vectors.{verb}"


def task_submitted(priority: str, shard: int, tenant: str) -> str:
    """Subject of TaskSubmitted."""
    return f"task.submitted.{priority}.{shard}.{tenant_token(tenant)}"


def task_more(priority: str, shard: int, tenant: str) -> str:
    """Subject of AttemptRequested."""
    return f"task.more.{priority}.{shard}.{tenant_token(tenant)}"


def ingress_shard(shard: int) -> str:
    """Filter of one INGRESS shard: tasks, and attempts that are to be made again."""
    return f"task.*.*.{shard}.>"


def work(pool: str, priority: str) -> str:
    """Subject of RunAttempt."""
    return f"work.{pool}.{priority}"


def work_pool(pool: str) -> str:
    """Filter of one worker pool."""
    return f"work.{pool}.>"


def attempt_started(tenant: str, task: str, number: int, delivery: int) -> str:
    """Subject of AttemptStarted: one per delivery."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.started.{delivery}"


def attempt_ended(tenant: str, task: str, number: int) -> str:
    """Subject of AttemptAnswered and AttemptFailed: one per attempt, whoever comes first."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.ended"


def attempt_retried(tenant: str, task: str, number: int, try_number: int) -> str:
    """Subject of AttemptRetried: one per try, whoever comes first."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.retried.{try_number}"


def attempt_starts(tenant: str, task: str, number: int) -> str:
    """Filter of one attempt's AttemptStarted messages."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.started.*"


def attempt_discarded(tenant: str, task: str, number: int, delivery: int) -> str:
    """Subject of AttemptDiscarded."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.discarded.{delivery}"


def attempt_asked(tenant: str, task: str, number: int) -> str:
    """Subject of AttemptAsked: one per attempt, whoever comes first."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.asked"


def attempt_tested(tenant: str, task: str, number: int) -> str:
    """Subject of AttemptTested: one per attempt, whoever comes first."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.tested"


def attempt_checkpoint(tenant: str, task: str, number: int) -> str:
    """Subject of TextCheckpointed."""
    return f"attempt.{tenant_token(tenant)}.{task}.{number}.checkpoint"


def attempts_of(tenant: str, task: str) -> str:
    """Filter of everything about one task's attempts."""
    return f"attempt.{tenant_token(tenant)}.{task}.>"


def task_settled(tenant: str, task: str) -> str:
    """Subject of the terminal message: one per task."""
    return f"task.settled.{tenant_token(tenant)}.{task}"


def settled_of_tenant(tenant: str) -> str:
    """Filter of one tenant's terminal messages."""
    return f"task.settled.{tenant_token(tenant)}.>"


def task_changed(tenant: str, task: str) -> str:
    """Subject of TaskAccepted and TaskDispatched."""
    return f"task.changed.{tenant_token(tenant)}.{task}"


def task_told(tenant: str, task: str) -> str:
    """Filter of what was told of one task's state: accepted, dispatched, settled."""
    return f"task.*.{tenant_token(tenant)}.{task}"


def schedule_task(tenant: str, task: str) -> str:
    """Subject on which a TaskSubmitted waits for its time: one per task."""
    return f"schedule.task.{tenant_token(tenant)}.{task}"


def schedule_cron(tenant: str, schedule: str) -> str:
    """Subject on which the next FireSchedule of a cron schedule waits: one per schedule."""
    return f"schedule.cron.{tenant_token(tenant)}.{schedule}"


def schedule_due(shard: int) -> str:
    """Subject to which the broker moves what has fallen due."""
    return f"schedule.due.{shard}"


def schedule_key(tenant: str, schedule: str) -> str:
    """Key of a cron schedule's definition in its bucket."""
    return f"{tenant_token(tenant)}.{schedule}"


def reused(replica: str) -> str:
    """Subject of AnswersReused."""
    return f"reused.{replica}"


def feedback(tenant: str, task: str) -> str:
    """Subject of Feedback: all that was said about one task."""
    return f"feedback.{tenant_token(tenant)}.{task}"


def cancel(tenant: str, task: str) -> str:
    """Subject of CancelRequested."""
    return f"ctl.cancel.{tenant_token(tenant)}.{task}"


def done(replica: str, task: str) -> str:
    """Core subject on which a waiting gateway replica hears that a task settled."""
    return f"done.{replica}.{task}"


def done_replica(replica: str) -> str:
    """Filter of one gateway replica's notifications."""
    return f"done.{replica}.*"


def token(tenant: str, task: str) -> str:
    """Core subject of TokenChunk."""
    return f"token.{tenant_token(tenant)}.{task}"


def capacity(pool: str, worker: str) -> str:
    """Core subject on which a worker says how much it can take."""
    return f"capacity.{pool}.{worker}"


def queue_of_shard(shard: int) -> str:
    """Subject on which a shard's owner tells of its queue."""
    return f"svc.router.queue.{shard}"


def holds_of_shard(shard: int) -> str:
    """Subject on which a shard's owner is asked for holds."""
    return f"svc.holds.{shard}"


def ledger_journal(shard: int) -> str:
    """Subject of a shard's journal of holds; written by expected sequence."""
    return f"ledger.journal.{shard}"


def ledger_snapshot(shard: int) -> str:
    """Subject of the snapshots of a shard's state; the last one counts."""
    return f"ledger.snapshot.{shard}"


def dead(service: str, tenant: str) -> str:
    """Subject of DeadLetter; ``tenant`` is ``-`` where it could not be told, or what was told is no id."""
    return f"dead.{service}.{tenant if TENANT_ID.match(tenant) else '-'}"


def dead_of(service: str = "", tenant: str | None = None) -> str:
    """Filter of dead letters: of one service, of one tenant (empty: those whose tenant could not be told), or all."""
    return f"dead.{service or '*'}.{'*' if tenant is None else tenant_token(tenant or '-')}"


def again(durable: str, letter: int, subject: str) -> str:
    """Subject on which one consumer of EVENTS gets a message again; ``letter`` is the sequence of its dead letter."""
    return f"again.{durable}.{letter}.{subject}"


def again_of(durable: str) -> str:
    """Filter of what one consumer of EVENTS gets again."""
    return f"again.{durable}.>"


def original(subject: str) -> str:
    """Returns the subject that a message first had: what a consumer gets again reads as it did the first time."""
    if not subject.startswith("again."):
        return subject
    return subject.split(".", 3)[-1]


def audit(tenant: str) -> str:
    """Subject of AuditEntry, of a tenant's chain or the platform's; raises InvalidIdError for what is neither's."""
    return f"audit.{tenant if tenant == PLATFORM else tenant_token(tenant)}"


# What the broker itself says: a message was delivered as often as its consumer may, and nobody answered for it.
MAX_DELIVERIES_ALL: Final = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"

# Headers that the broker sets or obeys; they are no part of a message that is published again.
BROKER_HEADERS: Final = ("Nats-", "Status", "Description")

# What passes beside the journey: JetStream's own requests and acknowledgements, replies, key–value writes.
INTERNAL_PREFIXES: Final = ("$", "_INBOX.")


def state_key(name: str) -> str:
    """Returns the key of a named thing in a bucket: names of models may hold what no key may."""
    return hashlib.blake2s(name.encode(), digest_size=16).hexdigest()
