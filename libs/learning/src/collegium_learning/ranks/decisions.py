"""Whether a model goes up or down, and why: a value that holds all its numbers. Pure.

A promotion needs the step's necessary conditions (so many pairs, such a score, such a win rate) and the evidence: that
the model is better than those above it, or, where it is cheaper, that it is not worse than them by more than a margin.
A demotion needs the evidence that it is worse by more than the margin, since it was promoted or lately. One rule: the
necessary conditions promote nobody; only evidence does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from collegium_contracts.parts import Rank

from collegium_learning.ranks import bounds, superiority, tenants
from collegium_learning.ranks.pairs import Pairs, total

Ground = Literal["better", "as_good_and_cheaper", "worse", "worse_lately"]
Verdict = Literal["promote", "demote", "stay"]

RANKS: Final[tuple[Rank, ...]] = ("student", "ta", "teacher")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is necessary for one step up: pairs, the mean score of the answers, and the share of discordant pairs won.

    ``pairs`` counts discordant ones where a model has to be better, and all of them where it has to be as good.
    """

    pairs: int
    score: float
    win_rate: float


STEPS: Final[Mapping[Rank, Step]] = {
    "ta": Step(pairs=30, score=0.75, win_rate=0.60),
    "teacher": Step(pairs=50, score=0.85, win_rate=0.70),
}


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How sure a decision has to be.

    ``odds`` to one are asked for a change of rank, and ``lately_odds`` for one because of the latest pairs alone.
    ``margin`` is how much of a share of all pairs a model may lose more than it wins and still be as good; it must cost
    at most ``price_ratio`` of what it replaces. ``false_share`` bounds the wrong ones among all changes of one round.
    """

    odds: float = 60.0
    lately_odds: float = 2_000.0
    margin: float = 0.05
    price_ratio: float = 0.9
    false_share: float = 0.05


DEFAULT: Final = Rules()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model in one domain, for one tenant or (``tenant`` empty) for all of them.

    ``above`` holds its pairs with models of higher ranks, ``beside`` those with models that it has to keep up with,
    both by tenant; ``lately`` is the detector's value. Of those ``above`` so many are ``sure``: about what a teacher
    was sure of, and nobody else said was right. They are the easy ones: a step has to have its pairs without them.
    Prices are of the same work, in any unit.
    """

    model: str
    domain: str
    rank: Rank
    tenant: str = ""
    above: Mapping[str, Pairs] = {}
    beside: Mapping[str, Pairs] = {}
    lately: float = 0.0
    sure: int = 0
    price: float = 0.0
    price_above: float = 0.0


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of a model's rank, and the numbers; ``odds`` to one speak for ``ground``, ``needed`` was asked.

    ``missing`` names the conditions that are not met, in words.
    """

    model: str
    domain: str
    verdict: Verdict
    before: Rank
    after: Rank
    tenant: str = ""
    ground: Ground | None = None
    odds: float = 0.0
    needed: float = 0.0
    pairs: Pairs = Pairs()
    tenants: int = 0
    price_ratio: float | None = None
    missing: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The decision in one sentence."""
        where = f"in domain {self.domain!r}" if self.domain else "where no domain is stated"
        told = (
            f"{self.pairs.wins} won, {self.pairs.losses} lost, {self.pairs.ties} as good of {self.pairs.count} pairs"
            f" by {self.tenants} tenant{'' if self.tenants == 1 else 's'}, mean score {self.pairs.mean_score:.2f}"
        )
        if self.verdict == "stay":
            return f"stays {self.before} {where}: {'; '.join(self.missing) or 'nothing speaks for a change'} ({told})"
        because = {
            "better": "better than those above it",
            "as_good_and_cheaper": f"as good as those above it at {self.price_ratio or 0:.3g} of their price",
            "worse": "worse than what it replaced",
            "worse_lately": "worse of late than what it replaced",
            None: "",
        }[self.ground]
        return (
            f"{self.before} to {self.after} {where}: {because}, {self.odds:.3g} to one where {self.needed:.3g} were"
            f" asked ({told})"
        )


def promotion(known: Evidence, rules: Rules = DEFAULT, steps: Mapping[Rank, Step] = STEPS) -> Decision:
    """Decides whether a model goes up by one step; ``stay`` says what is missing."""
    pairs = total(known.above.values())
    stay = Decision(
        model=known.model,
        domain=known.domain,
        tenant=known.tenant,
        verdict="stay",
        before=known.rank,
        after=known.rank,
        pairs=pairs,
        tenants=_voices(known.above),
        needed=rules.odds,
    )
    if known.rank == RANKS[-1]:
        return stay
    after = RANKS[RANKS.index(known.rank) + 1]
    step = steps[after]
    hard = stay.pairs.count - known.sure
    unsure = (not known.sure or hard >= step.pairs, f"{hard} of {step.pairs} pairs about what no teacher was sure of")
    # The necessary conditions, too, are nobody's alone to meet or to miss.
    pairs = total(known.above.values()) if known.tenant else tenants.trimmed(known.above)
    better = msgspec.structs.replace(
        stay,
        odds=_odds(_for(known, known.above, lambda one: superiority.log_evidence(one.wins, one.losses))),
        missing=_missing(
            (pairs.discordant >= step.pairs, f"{pairs.discordant} of {step.pairs} pairs that differ"),
            unsure,
            (pairs.win_rate >= step.win_rate, f"win rate {pairs.win_rate:.2f} of {step.win_rate:.2f}"),
            (pairs.mean_score >= step.score, f"mean score {pairs.mean_score:.2f} of {step.score:.2f}"),
        ),
    )
    ratio = known.price / known.price_above if known.price_above > 0 else None
    as_good = msgspec.structs.replace(
        stay,
        odds=_odds(_for(known, known.above, lambda one: bounds.log_evidence(one, -rules.margin))),
        price_ratio=ratio,
        missing=_missing(
            (ratio is not None and ratio <= rules.price_ratio, "a price not low enough to be promoted for"),
            (pairs.count >= step.pairs, f"{pairs.count} of {step.pairs} pairs"),
            unsure,
            (pairs.mean_score >= step.score, f"mean score {pairs.mean_score:.2f} of {step.score:.2f}"),
        ),
    )
    found = [_sure(better, "better", after, rules), _sure(as_good, "as_good_and_cheaper", after, rules)]
    return next((one for one in found if one.verdict == "promote"), max(found, key=lambda one: -len(one.missing)))


def demotion(known: Evidence, rules: Rules = DEFAULT) -> Decision:
    """Decides whether a model goes down by one step."""
    pairs = total(known.beside.values())
    stay = Decision(
        model=known.model,
        domain=known.domain,
        tenant=known.tenant,
        verdict="stay",
        before=known.rank,
        after=known.rank,
        pairs=pairs,
        tenants=_voices(known.beside),
        needed=rules.odds,
    )
    if known.rank == RANKS[0]:
        return stay
    after = RANKS[RANKS.index(known.rank) - 1]
    odds = _odds(_for(known, known.beside, lambda one: bounds.log_evidence(one.reversed(), rules.margin)))
    if odds >= rules.odds:
        return msgspec.structs.replace(stay, verdict="demote", after=after, ground="worse", odds=odds)
    if known.lately >= rules.lately_odds:
        return msgspec.structs.replace(
            stay, verdict="demote", after=after, ground="worse_lately", odds=known.lately, needed=rules.lately_odds
        )
    return msgspec.structs.replace(stay, odds=odds, missing=(f"{odds:.3g} to one of {rules.odds:.3g}",))


def _for(known: Evidence, told: Mapping[str, Pairs], evidence: tenants.Log) -> float:
    if known.tenant:
        return evidence(told.get(known.tenant, Pairs()))
    return tenants.log_for_all(told, evidence)


def _sure(decision: Decision, ground: Ground, after: Rank, rules: Rules) -> Decision:
    if decision.odds < rules.odds:
        missing = (*decision.missing, f"{decision.odds:.3g} to one of {rules.odds:.3g}")
        return msgspec.structs.replace(decision, missing=missing)
    if decision.missing:
        return decision
    return msgspec.structs.replace(decision, verdict="promote", after=after, ground=ground)


def _missing(*conditions: tuple[bool, str]) -> tuple[str, ...]:
    return tuple(text for is_met, text in conditions if not is_met)


def _voices(told: Mapping[str, Pairs]) -> int:
    return sum(1 for pairs in told.values() if pairs.count)


def _odds(log_evidence: float) -> float:
    # Beyond this nobody counts, and the wire's floats end.
    return math.exp(min(log_evidence, 300.0))
