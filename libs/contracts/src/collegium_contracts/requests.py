"""Questions that one service asks another and waits for (core NATS, ``svc.<service>.<verb>``).

A question is answered by its answer or by :class:`Refused`, which carries a code of the error catalogue.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.identity import BudgetSet, Reach
from collegium_contracts.messages import Message
from collegium_contracts.state import RateLimits


class Refused(Message, frozen=True, kw_only=True):
    """The asked service could not or would not answer; ``code`` is a key of the error catalogue."""

    code: str
    message: str
    param: str | None = None


class TurnsRequest(Message, frozen=True, kw_only=True):
    """Asks context for a conversation's turns, as folded up to the tenant's newest settled task.

    ``max_bytes`` is what the model's window leaves for them (0: as much as travels in a message).
    """

    tenant: str
    conversation: str
    max_messages: int = 200
    max_bytes: int = 0
    project: str = "default"


class TurnsReply(Message, frozen=True, kw_only=True):
    """The earlier messages of a conversation, oldest first; ``history`` seals a JSON list, or is none for a new one.

    ``summary`` seals text in the place of older turns that were left out.
    """

    history: Envelope | None
    messages: int
    history_bytes: int = 0
    summary: Envelope | None = None
    summary_bytes: int = 0


class UsageRequest(Message, frozen=True, kw_only=True):
    """Asks billing for usage in [from, to), grouped; ``tenant`` none means all tenants (operators only)."""

    tenant: str | None
    from_ms: int
    to_ms: int
    group_by: list[str] = []


class UsageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one row: counts, and money as decimal strings of dollars."""

    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd: str
    wasted_usd: str
    charged_usd: str
    saved_usd: str
    margin_usd: str = "0"
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One group of a usage report: the group's values by name, and its figures."""

    group: dict[str, str]
    figures: UsageFigures


class UsageReply(Message, frozen=True, kw_only=True):
    """A usage report: the groups and their sum."""

    rows: list[UsageRow]
    totals: UsageFigures


class PossibleSpendRequest(Message, frozen=True, kw_only=True):
    """Asks billing for calls started in [from, to) of whose end nothing is booked; ``tenant`` none means all."""

    tenant: str | None
    from_ms: int
    to_ms: int


class PossibleSpendRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was started and may have cost something: which, of which model, and when it started."""

    task_id: str
    attempt: int
    delivery: int
    tenant: str
    model: str
    started_at_ms: int


class PossibleSpendReply(Message, frozen=True, kw_only=True):
    """The calls, oldest first; ``is_cut`` where there are more: ask for a shorter time."""

    rows: list[PossibleSpendRow]
    is_cut: bool = False


class TenantCreate(Message, frozen=True, kw_only=True):
    """Asks billing to create a tenant; refused with ``already_exists`` where it stands."""

    tenant: str
    tier: str = "free"


class TenantList(Message, frozen=True, kw_only=True):
    """Asks billing for all tenants, or for one."""

    tenant: str | None = None


class TenantRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant as shown to operators."""

    id: str
    tier: str
    created_at_ms: int
    keys: int
    state: str = "active"
    projects: int = 0
    limits: RateLimits | None = None
    stale_answers: bool = False
    pool: str = ""
    gates: list[str] = []
    verified: dict[str, int] = {}
    collects_since_ms: int = 0
    grants: list[str] = []


class TenantsReply(Message, frozen=True, kw_only=True):
    """The tenants concerned."""

    tenants: list[TenantRow]


class KeyCreate(Message, frozen=True, kw_only=True):
    """Asks billing for a new key of a tenant; ``budget`` is made with it, whatever its ``of`` says."""

    tenant: str
    project: str = "default"
    scopes: list[str]
    name: str = ""
    role: str = ""
    models: list[str] = []
    expires_at_ms: int = 0
    limits: RateLimits | None = None
    budget: BudgetSet | None = None
    reach: Reach = Reach()


class KeyRevoke(Message, frozen=True, kw_only=True):
    """Asks billing to revoke a key by its public id."""

    key_id: str
    reach: Reach = Reach()


class KeyList(Message, frozen=True, kw_only=True):
    """Asks billing for the keys of a tenant (all tenants when none), or for one key."""

    tenant: str | None = None
    key_id: str | None = None


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One key as shown: never its secret."""

    id: str
    tenant: str
    project: str
    name: str
    scopes: list[str]
    created_at_ms: int
    revoked_at_ms: int | None
    role: str = ""
    models: list[str] = []
    expires_at_ms: int = 0
    limits: RateLimits | None = None
    last_used_at_ms: int | None = None
    rotated_to: str = ""


class KeysReply(Message, frozen=True, kw_only=True):
    """The keys concerned; ``secret_key`` is the full key, present only in the answer that created it."""

    keys: list[KeyRow]
    secret_key: str | None = None


class QueueRequest(Message, frozen=True, kw_only=True):
    """Asks a shard's owner where a task stands in the queue; without a task, how long a tenant's queue is."""

    tenant: str
    task: str = ""


class QueueReply(Message, frozen=True, kw_only=True):
    """Where a task stands: ``position`` from 1, 0 where it is not queued; ``wait_seconds`` is an estimate, none where
    nothing was dispatched of late. ``waits_until_ms`` above 0: it is held until then. ``at_ms`` is the index's time."""

    position: int
    queued: int
    at_ms: int
    wait_seconds: float | None = None
    waits_until_ms: int = 0


class HoldAsk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task at the door: the most it may be charged, the tokens it is counted with, and until when it is held.

    ``task`` is the hold's id: asking again for the same task changes nothing. ``models`` are no part of it. Of one that
    ``waited`` for its time the key is looked at again: where it has ended, the answer is ``revoked_api_key``. With
    ``stores`` it leaves more behind than a plain chat does. What ``checks`` a task that is open needs no place besides.

    With ``hits`` nothing is held: so many answers that stood already are counted as requests. They were given before
    where ``are_given``, and are counted whatever the limits; otherwise they are refused where a limit leaves no room.

    ``picos_least`` (0: none) is what may be held instead where a budget does not cover ``picos``.
    """

    task: str
    tenant: str
    project: str = "default"
    key_id: str = ""
    tier: str = "free"
    picos: int = 0
    tokens: int = 0
    expires_at_ms: int = 0
    hits: int = 0
    are_given: bool = False
    waited: bool = False
    stores: bool = False
    checks: bool = False
    picos_least: int = 0


class HoldsRequest(Message, frozen=True, kw_only=True):
    """Asks a shard's owner for several holds at once."""

    asks: list[HoldAsk]


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tightest bound on requests and on tokens as it stands after this request; a limit of 0: there is none.

    ``reset`` is in how many milliseconds the whole limit is free again if nothing more is asked.
    """

    limit_requests: int = 0
    remaining_requests: int = 0
    reset_requests_ms: int = 0
    limit_tokens: int = 0
    remaining_tokens: int = 0
    reset_tokens_ms: int = 0


class HoldAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one ask: an empty ``code`` is yes; ``is_least``: the least that was asked for is held."""

    code: str = ""
    message: str = ""
    retry_after_ms: int = 0
    rates: Rates = Rates()
    is_least: bool = False


class HoldsReply(Message, frozen=True, kw_only=True):
    """The answers, in the order of the asks."""

    answers: list[HoldAnswer]


class HoldsRelease(Message, frozen=True, kw_only=True):
    """Tells a shard's owner of holds whose tasks were not submitted after all; nobody waits for it."""

    tenant: str
    tasks: list[str]


class HoldsListRequest(Message, frozen=True, kw_only=True):
    """Asks a shard's owner what it holds: sums by budget, and open holds.

    Of the holds that are older than ``older_than_ms`` the oldest are told, ``holds_max`` at most.
    """

    tenant: str | None = None
    older_than_ms: int = 0
    holds_max: int = 1_000


class BudgetStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as its owner sees it now, in pico-dollars; ``renews_at_ms`` is when more of it is free (0: unknown)."""

    budget: str
    tenant: str
    scope: str
    of: str
    limit_picos: int
    captured_picos: int
    held_picos: int
    renews_at_ms: int = 0


class OpenHold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that stands."""

    task: str
    tenant: str
    picos: int
    expires_at_ms: int


class HoldsListReply(Message, frozen=True, kw_only=True):
    """What a shard's owner holds. ``over_hold`` counts captures above their holds since it took the shard."""

    budgets: list[BudgetStanding]
    holds: list[OpenHold]
    over_hold: int = 0
