"""Settled answers as confidence sees them: who agreed with whom, and what follows from members' shares. Pure.

One rule: who fits and who applies make features here, so that what was fitted is what is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from collegium_contracts.parts import Evidence, Rank

from collegium_learning.confidence.calibration import Features, confidence
from collegium_learning.confidence.policy import EVERYWHERE, ConfidencePolicy, answers_of
from collegium_learning.panels.votes import Reliability, Tally, Vote, weighted_tally

# How often a model of a rank is taken to be right until its own record says more: stated, not measured.
RANK_RIGHT: Final[dict[Rank, float]] = {"student": 0.6, "ta": 0.75, "teacher": 0.9}


class Case(msgspec.Struct, frozen=True):
    """One settled answer: its domain, plan, what its verdict rested on, and whether it was right (none: not known).

    A plan of one has evidence of one member.
    """

    domain: str
    plan: str
    evidence: Evidence
    right: bool | None = None


def features_of(case: Case, right: Mapping[str, float], unknown: float) -> Features:
    """Returns what is known about the answer of a case, by members' shares."""
    evidence = case.evidence
    right = {said.model: right.get(said.model, RANK_RIGHT[said.rank]) for said in evidence.said}
    votes = {
        number: Vote("" if said.camp == 0 else str(said.camp), said.model)
        for number, said in enumerate(evidence.said, 1)
    }
    answers = answers_of(evidence.answer_type, evidence.choices)
    tally = weighted_tally(votes, Reliability(right=dict(right), unknown=unknown, answers=answers))
    camp = _camp(tally, str(evidence.camp))
    in_camp = [said for said in evidence.said if said.camp == evidence.camp and said.camp]
    logprobs = [said.logprob for said in in_camp if said.logprob is not None]
    shares = [right[said.model] for said in in_camp]
    return Features(
        domain=case.domain,
        agreeing=len(in_camp),
        votes=sum(1 for said in evidence.said if said.camp),
        asked=len(evidence.said),
        probability=camp,
        logprob=max(logprobs, default=None),
        judge=evidence.judge,
        history=max(shares, default=None),
    )


def stated_confidence(policy: ConfidencePolicy, case: Case) -> float:
    """Returns how probably the answer of a case is right, by what was learned."""
    right = {**policy.right.get(EVERYWHERE, {}), **policy.right.get(case.domain, {})}
    return confidence(features_of(case, right, policy.unknown), policy.calibration)


def _camp(tally: Tally | None, key: str) -> float | None:
    if tally is None:
        return None
    return next((camp.probability for camp in tally.camps if camp.key == key), None)
