"""Routing policies as the router applies them: the newest that could be read of each tenant, swapped whole.

A tenant without a policy of its own goes by the operator's, and without that as if there were none. What cannot be read
is counted and told, and the last good one stays. One rule: a policy orders candidates that may answer; who may answer
is not its to say, and a named model never comes here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from collegium_contracts import codec
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import shard_of
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.parts import Rank, TaskRef
from collegium_contracts.policies import KEY_PREFIX, OPERATOR, RoutingPolicy
from collegium_contracts.routing import Route
from collegium_contracts.spending import Debt, SpendingKept
from collegium_contracts.state import ModelRecord
from collegium_learning.routing.choosing import Candidate, Choice, Draw, Wants, decide
from collegium_learning.routing.features import Floats
from collegium_learning.routing.predicting import Predictor, UnknownLayoutError
from collegium_learning.routing.shares import Shares
from collegium_learning.routing.spending import Spending, Target

from collegium_router.choosing.domains import Domains
from collegium_router.choosing.seen import Seen

log = structlog.get_logger(__name__)

# Of ordinary text, and of an answer where nothing bounds it shorter.
BYTES_PER_TOKEN: Final = 4
ANSWER_TOKENS: Final = 300
_PICOS: Final = 10**12


class Aims(NamedTuple):
    """What the configuration wants of choices: a quality, the share that is given away to learn, shares of ranks, what
    tenants (or ``tenant/project``) are to spend, and how many members a novel question's panel has at most.
    """

    quality_floor: float | None = None
    exploration: float = 0.0
    shares: Mapping[Rank, float] = {}
    spend: Mapping[str, Target] = {}
    novel_members: int = 9


class Policies:
    """The policies that stand, by tenant, and the domains; ``unreadable`` counts policies that could not be read."""

    def __init__(self, aims: Aims) -> None:
        self._aims = aims
        self.domains = Domains()
        # None: an operator wants none to apply, not even that of all tenants.
        self._predictors: dict[str, Predictor | None] = {}
        # By which revision of a key; a watch tells of what stands again and again.
        self._revisions: dict[str, int] = {}
        self._shares: dict[str, Shares] = {}
        self._spending = Spending(aims.spend)
        self.unreadable = 0

    @property
    def refused(self) -> int:
        """How many values of the bucket could not be read."""
        return self.unreadable + self.domains.refused

    @property
    def count(self) -> int:
        """How many policies stand."""
        return sum(predictor is not None for predictor in self._predictors.values())

    @property
    def novel_members(self) -> int:
        """How many members a panel of a novel question has at most."""
        return self._aims.novel_members

    def aim(self, aims: Aims) -> None:
        """Takes other aims."""
        if aims.shares != self._aims.shares:
            self._shares = {}
        self._spending.keep(aims.spend)
        self._aims = aims

    def use(self, key: str, value: bytes, revision: int = 0) -> None:
        """Learns the value of a key of the bucket; anything but a policy that can be applied changes nothing.

        A ``revision`` (0: not known) that was told before is not read again.
        """
        self.domains.use(key, value, revision)
        if not key.startswith(KEY_PREFIX) or (revision and self._revisions.get(key) == revision):
            return
        self._revisions[key] = revision
        tenant = key.removeprefix(KEY_PREFIX)
        try:
            policy = codec.state.decode(value)
            if not isinstance(policy, RoutingPolicy) or policy.tenant != tenant:
                raise UnknownLayoutError(f"{type(policy).__name__} is no policy of {tenant}")
            self._predictors[tenant] = Predictor(policy) if policy.models else None
        except (ContractError, ValueError, ArithmeticError) as error:
            self.unreadable += 1
            log.error("policy unreadable, keeping the last good one", tenant=tenant, error=str(error))

    def forget(self, key: str) -> None:
        """Forgets the policy of a key of the bucket that was deleted, and what was noted of its tenant."""
        self.domains.forget(key)
        if key.startswith(KEY_PREFIX):
            tenant = key.removeprefix(KEY_PREFIX)
            self._predictors.pop(tenant, None)
            self._shares.pop(tenant, None)

    def embeds(self, tenant: str) -> bool:
        """Whether the features of a tenant's questions are wanted, by its policy or to say of which domain they are."""
        predictor = self._predictors.get(tenant)
        return (predictor is not None and predictor.policy.embeds) or self.domains.wants(tenant)

    def in_play(self, tenant: str) -> Collection[str]:
        """Returns the cheaper models that may be good enough by a tenant's policy; none: it knows of none."""
        predictor = self._predictors.get(tenant)
        return predictor.policy.in_play if predictor is not None else ()

    def order(
        self,
        submitted: TaskSubmitted,
        models: Sequence[ModelRecord],
        seen: Seen | None,
        now_ms: int,
        *,
        predictor: Predictor | None = None,
    ) -> tuple[Sequence[ModelRecord], Route]:
        """Returns who is to be asked for a task of ``auto``, in order, and why the first one is.

        By ``predictor``, or the policy that stands; a policy that fails on a question is none for it.
        """
        task = submitted.task
        predictor = predictor or self._predictors.get(task.tenant if task.tenant in self._predictors else OPERATOR)
        if predictor is not None:
            try:
                return self._ordered(predictor, submitted, models, seen, now_ms)
            except (ValueError, ArithmeticError) as error:
                version = predictor.policy.version
                log.error("policy not applied", task=task.id, tenant=task.tenant, version=version, exc_info=error)
        best = models[0]
        return models, Route(model=best.name, rank=best.rank, domain=task.domain, reasons=["no_policy"])

    def _ordered(
        self,
        predictor: Predictor,
        submitted: TaskSubmitted,
        models: Sequence[ModelRecord],
        seen: Seen | None,
        now_ms: int,
    ) -> tuple[Sequence[ModelRecord], Route]:
        task, policy = submitted.task, predictor.policy
        row: Floats | None = None
        if seen is not None and policy.tenant == task.tenant and policy.embedder in ("", seen.embedder):
            row = seen.row
        expected = predictor.expect(task.domain, row)
        candidates = [Candidate(model.name, model.rank, cost_usd(model, submitted)) for model in models]
        wanted = max(self._aims.quality_floor or 0.0, task.quality_min) or None
        pressure = self._pressure(task, now_ms) if self._aims.spend else 0.0
        wants = Wants(quality=wanted, seconds_max=(task.deadline_ms - now_ms) / 1000, pressure=pressure)
        choice = decide(
            predictor,
            expected,
            candidates,
            wants,
            Draw(drawn(task.id), self._aims.exploration),
            self._penalties(task.tenant),
        )
        by_name = {model.name: model for model in models}
        ordered = [by_name[name] for name in choice.order]
        return ordered, _route(ordered[0], choice, policy, submitted, seen, lacks=predictor.sees_rows and row is None)

    def chose(self, tenant: str, rank: Rank) -> None:
        """Notes whom a task went to, for the shares of ranks."""
        if self._aims.shares and self._predictors:
            self._shares.setdefault(tenant, Shares(self._aims.shares)).chose(rank)

    @property
    def counts_spending(self) -> bool:
        """Whether anybody has a target of what to spend."""
        return bool(self._aims.spend)

    def spending_of(self, shard: int) -> dict[str, Debt]:
        """Returns the debts of a shard's tenants, to be kept."""
        return {
            name: Debt(share=share, at_ms=at_ms, picos=target.picos, period_ms=target.period_ms)
            for name, (target, share, at_ms) in self._spending.kept().items()
            if _shard_of(name) == shard
        }

    def load_spending(self, kept: SpendingKept, now_ms: int) -> None:
        """Takes over the debts that were kept of a shard."""
        for name, debt in kept.debts.items():
            self._spending.load(name, Target(debt.picos, debt.period_ms), debt.share, debt.at_ms, now_ms)

    def forget_spending(self, shard: int) -> None:
        """Forgets the debts of a shard's tenants."""
        for name in self.spending_of(shard):
            self._spending.forget(name)

    def spent(self, tenant: str, project: str, picos: int, now_ms: int) -> None:
        """Notes what a settled task was charged, for its tenant's target and its project's."""
        self._spending.spent(tenant, picos, now_ms)
        self._spending.spent(f"{tenant}/{project}", picos, now_ms)

    def _pressure(self, task: TaskRef, now_ms: int) -> float:
        return max(self._spending.pressure(name, now_ms) for name in (task.tenant, f"{task.tenant}/{task.project}"))

    def _penalties(self, tenant: str) -> Mapping[Rank, float] | None:
        shares = self._shares.get(tenant)
        return shares.penalties if shares is not None else None


def cost_usd(model: ModelRecord, submitted: TaskSubmitted) -> float:
    """Returns what a call is expected to cost by its price, to compare candidates by."""
    bound = submitted.sampling.max_tokens
    answer = min(ANSWER_TOKENS, bound or ANSWER_TOKENS, model.max_output_tokens) * submitted.sampling.n
    prompt = submitted.prompt_bytes // BYTES_PER_TOKEN + 1
    price = model.price
    return (prompt * price.input_picos + answer * price.output_picos + price.call_picos) / _PICOS


def drawn(task_id: str) -> float:
    """Returns the number from 0 to 1 that a task draws, the same whoever asks and however often."""
    return int.from_bytes(hashlib.sha256(b"routing\0" + task_id.encode()).digest()[:7]) / 2**56


def _short(value: float | None) -> float | None:
    return round(value, 4) if value is not None else None


def _route(
    model: ModelRecord,
    choice: Choice,
    policy: RoutingPolicy,
    submitted: TaskSubmitted,
    seen: Seen | None,
    *,
    lacks: bool,
) -> Route:
    return Route(
        model=model.name,
        rank=model.rank,
        domain=submitted.task.domain,
        policy_version=policy.version,
        policy_of="operator" if policy.tenant == OPERATOR else "tenant",
        propensity=choice.propensity,
        explored=choice.explored,
        reasons=[*choice.reasons, *(["no_features"] if lacks else [])],
        quality=_short(choice.quality),
        gain=_short(choice.gain),
        candidates=sorted(choice.order),
        embedder=seen.embedder if seen is not None else "",
        features=seen.sealed if seen is not None else None,
    )


def _shard_of(name: str) -> int:
    """Returns the shard of the tenant in a target's name."""
    return shard_of(name.partition("/")[0])
