"""A tenant's next policy, and whether it goes live. Pure.

It is compared with what stands on the tenant's own logged choices, and refused where it would surely have been worse by
more than it may give away. One rule: a comparison of few draws decides nothing; then the policy's own caution must do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from collegium_contracts.parts import Rank
from collegium_contracts.policies import OPERATOR, Cell, RoutingPolicy
from collegium_contracts.policy_requests import Compared
from collegium_learning.routing import comparing
from collegium_learning.routing.choosing import RANK_ORDER, Candidate, Draw, Wants, decide
from collegium_learning.routing.fitting import Fitted, fit
from collegium_learning.routing.lessons import Beside, Doubles
from collegium_learning.routing.predicting import Predictor
from collegium_learning.routing.trying import caution, in_play, trials

from collegium_evolution.policies.decided_store import TenantMean
from collegium_evolution.policies.gathering import Gathered, compared

# Judged answers before a tenant has a policy of its own.
ROWS_MIN: Final = 20
# From so many on routers are to look at questions, and with so many seen ones a policy goes by them.
EMBEDS_FROM: Final = 50
FULL_ROWS_MIN: Final = 150
# Logged choices, and draws among them, that a comparison takes to decide anything.
COMPARED_ROWS_MIN: Final = 50
DRAWN_MIN: Final = 10
# Tenants whose means the operator's are a median of.
TENANTS_MIN: Final = 3
TENANT_ROWS_MIN: Final = 20
# A policy fits one message of the broker with these and as many models as a roster has.
DOMAINS_MAX: Final = 300
BANK_MAX: Final = 2_000
_NO_DRAW: Final = Draw(1.0, 0.0)


class Priced(NamedTuple):
    """A model as the roster has it: its rank, and what a call costs by its price (dollars), to compare by."""

    rank: Rank
    cost_usd: float


class Verdict(NamedTuple):
    """A policy, whether it goes live, why, and how it compares where that could be said."""

    policy: RoutingPolicy
    is_live: bool
    why: str
    compared: Compared | None


def next_policy(
    gathered: Gathered,
    roster: Mapping[str, Priced],
    standing: RoutingPolicy | None,
    blank: RoutingPolicy,
    seed: int,
    trial_share: float = 0.0,
) -> Verdict:
    """Fits a tenant's policy to its lessons and compares it with the one that stands."""
    gathered = compared(gathered, {name: RANK_ORDER[model.rank] for name, model in roster.items()})
    lessons = gathered.lessons
    embeds = lessons.size >= EMBEDS_FROM and len(roster) > 1
    fitted = fit(
        lessons,
        seed=seed,
        bank_max=BANK_MAX,
        blank=msgspec.structs.replace(blank, embeds=embeds, embedder=gathered.embedder),
    )
    policy = _bounded(fitted.policy)
    if int(lessons.has_row.sum()) < FULL_ROWS_MIN:
        policy = msgspec.structs.replace(
            policy, family="domain", linear=b"", bank=b"", bank_rest=b"", projection=b"", stack=(0.0, 0.0)
        )
    policy = _trying(policy, lessons.beside, roster, trial_share)
    found = _compared(gathered, fitted, policy, standing, roster, seed)
    if found is None:
        return Verdict(policy, True, "too few logged choices to compare it by", None)
    value, _, high = found.gained
    decides = found.rows >= COMPARED_ROWS_MIN and found.drawn >= DRAWN_MIN
    if decides and high < 0.0 and value < -policy.tolerance:
        return Verdict(policy, False, f"it would have lost {-value:.1%} on logged choices", found)
    return Verdict(policy, True, f"{value:+.1%} on {found.rows} logged choices", found)


def _trying(
    policy: RoutingPolicy, beside: Beside | None, roster: Mapping[str, Priced], trial_share: float
) -> RoutingPolicy:
    """Returns a policy that is as careful as its candidates are many, and gives those not known well a share."""
    if beside is None:
        return policy
    costs = {name: model.cost_usd for name, model in roster.items()}
    candidates = in_play(policy, beside, costs)
    policy = msgspec.structs.replace(policy, caution=caution(len(candidates)), in_play=sorted(candidates))
    return msgspec.structs.replace(policy, trials=trials(policy, beside, costs, trial_share))


def _bounded(policy: RoutingPolicy) -> RoutingPolicy:
    """Keeps the domains with most outcomes; the others are seen as everywhere."""
    if len(policy.domains) <= DOMAINS_MAX:
        return policy
    most = sorted(policy.domains, key=lambda name: (-sum(cell.rows for cell in policy.domains[name]), name))
    return msgspec.structs.replace(policy, domains={name: policy.domains[name] for name in sorted(most[:DOMAINS_MAX])})


def operators_policy(means: Sequence[TenantMean], blank: RoutingPolicy) -> RoutingPolicy | None:
    """Returns the policy of tenants without their own: medians of tenants' means, which no single tenant moves far."""
    by_model: dict[str, list[TenantMean]] = {}
    for mean in means:
        if mean.rows >= TENANT_ROWS_MIN:
            by_model.setdefault(mean.model, []).append(mean)
    models = sorted(model for model, found in by_model.items() if len(found) >= TENANTS_MIN)
    if not models:
        return None
    cells = [_median(by_model[model]) for model in models]
    rows = sum(cell.rows for cell in cells)
    return msgspec.structs.replace(blank, tenant=OPERATOR, models=models, everywhere=cells, rows=rows, family="mean")


def _median(found: Sequence[TenantMean]) -> Cell:
    values = [one.mean for one in found]
    # Tenants differ, and the next one may differ as much: what is unsure is one tenant, not the median.
    spread = float(np.std(values)) + 0.5 / float(np.sqrt(sum(one.rows for one in found)))
    cost = float(np.median([one.cost_picos for one in found]))
    seconds = float(np.median([one.seconds for one in found]))
    return Cell(sum(one.rows for one in found), float(np.median(values)), spread, cost, seconds)


def _compared(
    gathered: Gathered,
    fitted: Fitted,
    policy: RoutingPolicy,
    standing: RoutingPolicy | None,
    roster: Mapping[str, Priced],
    seed: int,
) -> Compared | None:
    lessons = gathered.lessons
    column = {model: at for at, model in enumerate(lessons.models)}
    logged = [
        at
        for at, one in enumerate(gathered.judged)
        if one.score is not None and one.of.propensity > 0.0 and len(_known(one.of.candidates, column, roster)) > 1
    ]
    if len(logged) < COMPARED_ROWS_MIN:
        return None
    judged = [gathered.judged[at] for at in logged]
    places = np.array(logged)
    means = np.nan_to_num(np.nanmean(lessons.scores, axis=0))
    expected = fitted.held_out[policy.family][places]
    entries = comparing.Logged(
        np.array([column[one.of.model] for one in judged]),
        np.array([one.of.propensity for one in judged]),
        np.array([one.score for one in judged if one.score is not None]),
        np.clip(np.where(np.isnan(expected), means, expected), 0.0, 1.0),
    )
    new = _chances(policy, gathered, places, column, roster)
    before = _chances(standing, gathered, places, column, roster)
    return Compared(
        rows=len(logged),
        drawn=sum(one.of.explored for one in judged),
        snips=comparing.snips(entries, new, seed),
        snips_before=comparing.snips(entries, before, seed),
        robust=comparing.robust(entries, new, seed),
        robust_before=comparing.robust(entries, before, seed),
        gained=comparing.gained(entries, new, before, seed),
    )


def _known(names: Sequence[str], column: Mapping[str, int], roster: Mapping[str, Priced]) -> list[str]:
    return [name for name in names if name in column and name in roster]


def _chances(
    policy: RoutingPolicy | None,
    gathered: Gathered,
    places: np.ndarray,
    column: Mapping[str, int],
    roster: Mapping[str, Priced],
) -> Doubles:
    """Returns whom a policy (none: the highest rank) would have chosen of the candidates of each logged choice."""
    lessons = gathered.lessons
    blank = RoutingPolicy(
        version=0, tenant="", created_at_ms=0, models=list(lessons.models), everywhere=[Cell()] * len(lessons.models)
    )
    predictor = Predictor(policy if policy is not None and policy.models else blank)
    sees = predictor.policy.embedder in ("", gathered.embedder)
    chances = np.zeros((len(places), len(lessons.models)))
    for row, at in enumerate(places):
        names = _known(gathered.judged[at].of.candidates, column, roster)
        candidates = [Candidate(name, roster[name].rank, roster[name].cost_usd) for name in names]
        seen = lessons.rows[at] if sees and lessons.has_row[at] else None
        expected = predictor.expect(lessons.domains[at], seen)
        chances[row, column[decide(predictor, expected, candidates, Wants(), _NO_DRAW).order[0]]] = 1.0
    return chances
