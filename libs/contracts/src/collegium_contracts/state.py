"""Versioned state that services share through key–value buckets.

Who writes and who reads each bucket stands in journey.py; here is what a value says. One that many need at once is a
single value and swapped whole (the roster, the scoreboard, a tenant's policy); one that several write is changed by
compare-and-set only. One rule: no secret stands here in the open, only hashes and sealed envelopes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.domains import DomainMap
from collegium_contracts.envelope import Envelope
from collegium_contracts.experiments import ExperimentSet
from collegium_contracts.gates import GateRule
from collegium_contracts.messages import Message, Plan, Rank, StopReason, TaskSubmitted
from collegium_contracts.modelstate import Breaker as Breaker  # noqa: PLC0414 - handed on
from collegium_contracts.modelstate import EarnedRank, EndpointHealth, RegisteredModel
from collegium_contracts.money import Price, Usage
from collegium_contracts.parts import Kind
from collegium_contracts.policies import RoutingPolicy
from collegium_contracts.spending import SpendingKept
from collegium_contracts.students import StudentOf
from collegium_contracts.windows import QuotaWindows

# A budget must fit a signed 64-bit number of pico-dollars.
MAX_BUDGET_PICOS = 9_000_000 * 10**12

BudgetScope = Literal["tenant", "project", "key"]
BudgetWindow = Literal["rolling", "calendar_day", "calendar_month"]


class BudgetRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be charged in a window to a tenant, or to a project or key of it (``of`` names which).

    A rolling window reaches back ``window_seconds`` from now; a calendar's begins with the UTC day or month, and
    ``window_seconds`` is not read. ``alert_percents`` are the shares of it at which somebody is told.
    """

    id: str
    scope: BudgetScope
    of: str = ""
    limit_picos: int
    window: BudgetWindow = "rolling"
    window_seconds: int = 30 * 86_400
    alert_percents: list[int] = []


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds on how fast a tenant or a key may ask; none: no bound of its own.

    ``requests_per_day`` counts the last 24 hours, ``tokens_per_window`` input and output over ``token_window_seconds``.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_window: int | None = None
    token_window_seconds: int = 5 * 3600
    concurrency: int | None = None


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One API key as gateways know it: the SHA-256 of its secret (hex), what it may do, whether it is revoked.

    ``expires_at_ms`` (0: never) is when it ends, also by a rotation's grace; ``models`` (empty: all) is what it may
    ask. ``role`` (empty: that of its tenant) is what its scope ``admin`` means. ``follows`` are the keys that it stands
    for since they were rotated, the latest last.
    """

    id: str
    secret_sha256: str
    project: str = "default"
    scopes: list[str] = []
    revoked: bool = False
    expires_at_ms: int = 0
    models: list[str] = []
    limits: RateLimits | None = None
    role: str = ""
    follows: list[str] = []


class TenantRecord(Message, frozen=True, kw_only=True):
    """A tenant, its tier and its keys; the value under the tenant's id in the bucket ``tenants``.

    ``limits`` are over its tier's. A suspended tenant is known and refused; a deleted one has no keys.
    ``stale_answers`` lets gateways show answers that are too old while no model can be asked. ``pool`` (empty: none) is
    the worker pool of its own. ``lineages`` names the first key of those that follow another by rotation, also of keys
    that ended lately: a budget ``of`` a key, and its limits, are of all keys of its lineage.
    ``gates`` are the rules that its requests pass beside those for everyone, and ``verified`` what its operator vouches
    for of all its users (``{"age": 21}``). ``collects_since_ms`` above 0: since then it agrees that its work is learned
    from; what was learned answers for ``grants`` too.
    """

    id: str
    tier: str
    keys: list[KeyRecord] = []
    state: Literal["active", "suspended", "deleted"] = "active"
    projects: list[str] = []
    budgets: list[BudgetRecord] = []
    limits: RateLimits | None = None
    stale_answers: bool = False
    pool: str = ""
    lineages: dict[str, str] = {}
    gates: list[str] = []
    verified: dict[str, int] = {}
    collects_since_ms: int = 0
    grants: list[str] = []


class PricePair(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model costs us and what tenants are charged for it."""

    price: Price
    charge: Price


class PriceVersion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Prices that apply from ``version`` (Unix ms) on, until the next version begins."""

    version: int
    prices: PricePair


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as the roster knows it: everything but where it is and the key to it, which workers read from their own
    configuration.

    ``price_version`` (Unix ms, from when on they apply) names these prices for good. ``configured`` stands where an
    operator set them over the configuration's: what the configuration said then, and until it says something else.
    ``upcoming`` are the versions that begin later, the earliest first; of one that has begun meanwhile, whoever reads
    the record takes the prices (see priceversions.py).
    ``kind`` says which tasks it may be given. An embedder's ``dimensions`` are the length of its vectors (0: not known
    before it is asked), which may be asked to be another unless it ``has_fixed_dimensions``, and its
    ``context_tokens`` are those of one text.
    ``rank`` is the one that applies where none was earned in the task's domain (``earned``, see ranks.py). A
    ``drained`` model gets no more work until an operator says so; what it has in hand it finishes. ``student`` says
    what it is where the platform made it. A ``registered`` model was added while the platform ran, and is not the
    configuration's.
    """

    name: str
    rank: Rank
    pool: str
    price: Price
    charge: Price
    max_output_tokens: int
    context_tokens: int
    domains: list[str] = []
    capabilities: list[str] = []
    fallbacks: list[str] = []
    labels: dict[str, str] = {}
    enabled: bool = True
    concurrency: int | None = None
    price_version: int = 0
    configured: PricePair | None = None
    upcoming: list[PriceVersion] = []
    requests_per_minute: int | None = None
    tokens_per_window: int | None = None
    token_window_seconds: int = 0
    kind: Kind = "chat"
    dimensions: int = 0
    has_fixed_dimensions: bool = False
    earned: list[EarnedRank] = []
    drained: bool = False
    student: StudentOf | None = None
    registered: bool = False

    @property
    def is_limited(self) -> bool:
        """Whether its endpoint has a quota of tokens or calls."""
        return self.tokens_per_window is not None or self.requests_per_minute is not None


class Roster(Message, frozen=True, kw_only=True):
    """All models, by one writer; the value under ``roster`` in the bucket ``models``."""

    version: int
    models: list[ModelRecord]


class ModelScore(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model did in one domain, as folded from EVENTS: calls, successes, latency and cost.

    ``judged`` words of feedback stand, whose scores (0..1) add up to ``score_sum``.
    """

    model: str
    domain: str
    rank: str
    calls: int
    succeeded: int
    duration_ms_total: int
    cost_usd_picos: int
    duration_ms_p50: float = 0.0
    last_at_ms: int = 0
    judged: int = 0
    score_sum: float = 0.0


class Scoreboard(Message, frozen=True, kw_only=True):
    """The scoreboard; the value under ``scoreboard`` in the bucket ``policy``. ``folded_sequence`` is of EVENTS."""

    folded_sequence: int
    at_ms: int
    scores: list[ModelScore]


class IdempotencyClaim(Message, frozen=True, kw_only=True):
    """What stands for one Idempotency-Key; the value under ``<tenant>.<hash>`` in the bucket ``idempotency``.

    ``fingerprint`` is the SHA-256 of the request; ``holder`` is new for every request that takes the claim; a task's
    claim holds its id and trace, any other's holds the sealed ``reply`` once it is ``answered``. A ``released`` claim
    may be taken by anybody. Times are the holders' own.
    """

    fingerprint: bytes
    state: Literal["claimed", "stored", "answered", "released"]
    holder: str
    created_at_ms: int
    changed_at_ms: int
    task_id: str = ""
    trace_id: str = ""
    reply: Envelope | None = None


class ConfidenceRecord(Message, frozen=True, kw_only=True):
    """What was learned about confidence; the value under ``confidence`` in the bucket ``policy``, of all tenants
    together, and under ``confidence.<tenant>`` of one that has enough to learn from.

    ``policy`` is read by the library that made it, in any version that it can read; a version is never changed.
    """

    version: int
    made_at_ms: int
    labels: int
    policy: bytes


class Share(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One router's slice of a resource: permits it may use until ``expires_ms``, and how many it could use."""

    permits: int
    wanted: int
    expires_ms: int


class Shares(Message, frozen=True, kw_only=True):
    """The slices of one resource (a model's concurrency, a pool's slots) by router; a value in ``permits``."""

    resource: str
    capacity: int
    shares: dict[str, Share] = {}


Missed = Literal["skip", "once", "all"]


class CronSchedule(Message, frozen=True, kw_only=True):
    """A cron schedule; the value under ``<tenant>.<id>`` in the bucket ``schedules``, changed by compare-and-set only.

    ``task`` is what each firing submits: its ids and times stand at zero, and its ``deadline_ms`` is a length.
    ``next_at_ms`` is the first firing that was not submitted yet; ``missed`` says what becomes of firings that nobody
    was there for. ``callback`` and ``callback_receiver`` are those of each firing's TaskAccepted.
    ``stopped`` is the code of why the platform paused it.
    """

    id: str
    tenant: str
    cron: str
    timezone: str
    task: TaskSubmitted
    created_at_ms: int
    next_at_ms: int
    missed: Missed = "skip"
    name: str = ""
    paused: bool = False
    last_at_ms: int = 0
    last_task: str = ""
    fired: int = 0
    callback: Envelope | None = None
    callback_receiver: str = ""
    stopped: str = ""


class CachedAnswer(Message, frozen=True, kw_only=True):
    """An answer that may be given again; the value under ``<tenant>.<digest>`` in the bucket ``cache``.

    ``digest`` is the SHA-256 of everything that the answer depends on, the tenant included; ``usage`` is what the
    original's calls used, cost and were charged. ``output`` seals an ``Answer`` of content.py.
    """

    digest: bytes
    tenant: str
    task_id: str
    stored_at_ms: int
    plan: Plan
    stop_reason: StopReason
    model: str
    rank: str
    usage: Usage
    output: Envelope
    confidence: float | None = None


class WrappedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A data key, encrypted under the envelope key ``wrapped_by``; its plain bytes stand nowhere."""

    id: str
    wrapped_by: str
    nonce: bytes
    wrapped: bytes
    created_at_ms: int


class DataKeysRecord(Message, frozen=True, kw_only=True):
    """The data keys of a tenant, oldest first; the value under the tenant's id in the bucket ``datakeys``.

    The last one seals, all of them open. ``erased_at_ms`` above 0: they were destroyed, and none is made again.
    """

    tenant: str
    keys: list[WrappedKey] = []
    erased_at_ms: int = 0


class StorageUse(Message, frozen=True, kw_only=True):
    """What one service (``part``) stores of a tenant; the value under ``<tenant>.<part>`` in the bucket ``storage``.

    ``items`` counts rows, ``bytes`` their content before compression.
    """

    tenant: str
    part: str
    items: int
    bytes: int


ErasurePart = Literal["data_keys", "gateway", "router", "context", "evolution", "billing", "events"]
ERASURE_PARTS: tuple[ErasurePart, ...] = (
    "data_keys", "gateway", "router", "context", "evolution", "billing", "events",
)  # fmt: skip


class Erasure(Message, frozen=True, kw_only=True):
    """The erasure of a tenant; the value under its id in the bucket ``erasures``, changed by compare-and-set only.

    ``done`` says when each part was first erased (Unix ms), ``removed`` how many rows and messages went with it.
    """

    tenant: str
    requested_at_ms: int
    requested_by: str
    done: dict[str, int] = {}
    removed: dict[str, int] = {}


StateValue = (
    CachedAnswer
    | TenantRecord
    | Roster
    | Scoreboard
    | ConfidenceRecord
    | Breaker
    | EndpointHealth
    | Shares
    | IdempotencyClaim
    | CronSchedule
    | DataKeysRecord
    | Erasure
    | QuotaWindows
    | SpendingKept
    | StorageUse
    | GateRule
    | RoutingPolicy
    | RegisteredModel
    | DomainMap
    | ExperimentSet
)
