"""Who is given a share of tasks because it may be good enough and is not known well enough yet. Pure.

Shadows tell how often a cheaper model says the same; words about its own answers tell the rest, and those come only
where it answers. One rule: what trials may lose on average over all tasks is bounded, however many models are tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

from collegium_contracts.policies import RoutingPolicy

from collegium_learning.routing.lessons import Beside

# The quality that trials may cost on average over all tasks, until so many questions are known; then less and less.
RISK: Final = 0.01
RISK_ROWS: Final = 300
# No model is tried of which less is known, by second answers or words.
ROWS_MIN: Final = 20
AT_ONCE_MAX: Final = 2
# What a trial's model must save, as a share of what the reference costs, against who is good enough already.
SAVING_MIN: Final = 0.1
# A gain is not taken to be smaller than this: it is never known so well while a trial lasts.
_GAIN_MIN: Final = 0.03
_SHARE_MIN: Final = 0.01


# Of models that are all just too much worse, so often one looks good enough.
_MISTAKEN: Final = 0.25
# Who is surely worse by more than the tolerance is no candidate any more.
_OUT_SD: Final = 1.64


def in_play(policy: RoutingPolicy, beside: Beside, costs_usd: Mapping[str, float]) -> list[str]:
    """Returns who costs less than the reference and may be good enough, as far as is known."""
    if beside.reference not in costs_usd or beside.reference not in policy.models:
        return []
    best = policy.everywhere[policy.models.index(beside.reference)].mean
    return [
        name
        for name, cell, sd in zip(policy.models, policy.everywhere, beside.sd, strict=True)
        if costs_usd.get(name, costs_usd[beside.reference]) < costs_usd[beside.reference]
        and best - cell.mean - _OUT_SD * sd <= policy.tolerance
    ]


def caution(candidates: int) -> float:
    """Returns how many standard deviations make "surely": the more candidates there are, the luckier one of them is."""
    return round(NormalDist().inv_cdf(1.0 - _MISTAKEN / max(1, candidates)), 4)


def trials(policy: RoutingPolicy, beside: Beside, costs_usd: Mapping[str, float], share_max: float) -> dict[str, float]:
    """Returns the shares of tasks for trials, at most ``share_max`` together; the cheapest that may be good enough
    first.

    ``beside`` is in the order of the policy's models; ``costs_usd`` is what a call of each costs by its price; who is
    not in it is gone.
    """
    if beside.reference not in costs_usd or beside.reference not in policy.models:
        return {}
    best = policy.everywhere[policy.models.index(beside.reference)].mean
    dear = costs_usd[beside.reference]
    found: dict[str, float] = {}
    may_lose = RISK * RISK_ROWS / max(RISK_ROWS, policy.rows)
    risk, left = may_lose, share_max
    standing = dear
    for cost, name, cell, unsure in sorted(
        (
            (costs_usd[name], name, cell, sd)
            for name, cell, sd in zip(policy.models, policy.everywhere, beside.sd, strict=True)
            if name in costs_usd and name != beside.reference
        ),
        key=lambda one: one[:2],
        reverse=True,
    ):
        gain = best - cell.mean
        feared = gain + policy.caution * unsure
        if cell.rows < ROWS_MIN or unsure <= 0.0 or cost > standing - SAVING_MIN * dear:
            continue
        if feared <= policy.tolerance:
            standing = cost
            found, risk, left = {}, may_lose, share_max
            continue
        if gain - unsure > policy.tolerance or len(found) == AT_ONCE_MAX:
            continue
        share = min(left, risk / max(_GAIN_MIN, feared))
        if share >= _SHARE_MIN:
            found[name] = round(share, 4)
            risk, left = risk - share * max(_GAIN_MIN, feared), left - share
    return found
