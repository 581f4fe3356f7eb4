"""Fitting a policy to settled answers, of some of which it is known whether they were right. Pure.

A verdict's evidence says who agreed with whom, never what was said. Members' shares come from answers that were judged,
shrunk towards what their agreement with each other says (Dawid and Skene's model), which needs no judge. A curve is
fitted to features that were made without the row's own outcome, and measured on rows that it was not fitted to. One
rule: the same cases give the same policy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from collegium_contracts.parts import Evidence

from collegium_learning.confidence.calibration import Calibration, confidence
from collegium_learning.confidence.cases import Case, features_of
from collegium_learning.confidence.learning import Known, expected_calibration_error, fit_calibration
from collegium_learning.confidence.policy import EVERYWHERE, ConfidencePolicy, Measured, Promise
from collegium_learning.confidence.thresholds import LEVEL, learn_then_test
from collegium_learning.panels.dawid_skene import estimate
from collegium_learning.panels.history import Record, strength_of
from collegium_learning.panels.learning import folds_of
from collegium_learning.panels.votes import ANSWERS_UNKNOWN, P_UNKNOWN

# With fewer judged answers nothing is fitted: a stated prior is as good.
LABELS_MIN = 30
# With fewer judged answers a domain makes no promise of its own.
LABELS_PROMISE_MIN = 200
# How many judged answers what members' agreement says of one of them weighs against.
AGREEMENT_ROWS = 10.0
# Ways of agreeing that are looked at: far more than a school of models has.
PATTERNS_MAX = 5_000
# Thresholds that are tried.
CANDIDATES = 100
_NONE = Record(0, 0)


class Shares(NamedTuple):
    """Members' shares of right answers by domain, EVERYWHERE among them, and of one of whom nothing is known."""

    right: dict[str, dict[str, float]]
    unknown: float


def fit_policy(cases: Sequence[Case], loss_max: float, seed: int = 1, level: float = LEVEL) -> ConfidencePolicy | None:
    """Returns what cases (oldest first) teach; none where too few of them were judged.

    ``loss_max`` is how much worse than always asking the teachers a cascade that stops may be.
    """
    judged = [case for case in cases if case.right is not None]
    if len(judged) < LABELS_MIN:
        return None
    weighed = [case for case in judged if case.plan != "single"]
    shares = shares_of(cases)
    known = _held_out(cases, weighed, seed)
    stated: list[tuple[Case, float]] = []
    for fold in folds_of(len(known), seed + 1):
        held = set(fold)
        curves = fit_calibration([one for row, one in enumerate(known) if row not in held])
        stated += [(weighed[row], confidence(known[row].features, curves)) for row in fold]
    return ConfidencePolicy(
        calibration=fit_calibration(known) if len(known) >= LABELS_MIN else Calibration(),
        right=shares.right,
        unknown=shares.unknown,
        judges=_judges(judged),
        promises=_promises(stated, loss_max, level) if len(known) >= LABELS_MIN else {},
        measured=_measured(stated) if len(known) >= LABELS_MIN else {},
        labels=len(judged),
        panels=sum(1 for case in cases if len(case.evidence.said) > 1),
    )


def shares_of(cases: Sequence[Case]) -> Shares:
    """Returns how often members are right, by what was judged and by how they agree."""
    given, good = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for case in cases:
        for member, was_right in _judged(case):
            for domain in {case.domain, EVERYWHERE}:
                given[member, domain] += 1
                good[member, domain] += was_right
    agreed = _agreement(cases, {key[0]: Record(given[key], good[key]) for key in given if key[1] == EVERYWHERE})
    totals = [Record(given[key], good[key]) for key in sorted(given) if key[1] == EVERYWHERE]
    everyone = (sum(one.right for one in totals) + 2 * P_UNKNOWN) / (sum(one.given for one in totals) + 2)
    strength = strength_of(totals)
    everywhere = {
        member: _shrunk(given[member, EVERYWHERE], good[member, EVERYWHERE], agreed.get(member), everyone, strength)
        for member in sorted({member for member, _ in given} | set(agreed))
    }
    right: dict[str, dict[str, float]] = {EVERYWHERE: everywhere}
    for member, domain in sorted(given):
        if domain != EVERYWHERE:
            record = Record(given[member, domain], good[member, domain])
            right.setdefault(domain, {})[member] = record.shrunk(everywhere[member], AGREEMENT_ROWS)
    return Shares(right, everyone)


def _shrunk(given: int, good: int, agreed: float | None, everyone: float, strength: float) -> float:
    if agreed is None:
        return Record(given, good).shrunk(everyone, strength)
    return Record(given, good).shrunk(agreed, AGREEMENT_ROWS)


def _judged(case: Case) -> list[tuple[str, bool]]:
    """Who is known to have been right or wrong; of a wrong answer nothing is known of those who said others."""
    if case.right is None:
        return []
    evidence = case.evidence
    return [
        (said.model, case.right and said.camp == evidence.camp)
        for said in evidence.said
        if case.right or said.camp in (evidence.camp, 0)
    ]


def _agreement(cases: Sequence[Case], records: Mapping[str, Record]) -> dict[str, float]:
    """Returns members' shares by how they agree with each other, begun from what was judged of them."""
    panels = Counter(_pattern(case.evidence) for case in cases if len({said.model for said in case.evidence.said}) > 1)
    if not panels:
        return {}
    prior = {member: record.shrunk(P_UNKNOWN, AGREEMENT_ROWS) for member, record in records.items()}
    patterns = sorted(panels)[:PATTERNS_MAX]
    return estimate(patterns, prior, int(ANSWERS_UNKNOWN), [panels[pattern] for pattern in patterns]).right


def _pattern(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """Returns who agreed with whom, the same for all panels in which the same did: there are few of them."""
    names: dict[int, str] = {0: ""}
    return tuple(
        (said.model, names.setdefault(said.camp, str(len(names))))
        for said in sorted(evidence.said, key=lambda said: (said.model, said.camp))
    )


def _held_out(cases: Sequence[Case], weighed: Sequence[Case], seed: int) -> list[Known]:
    """Returns the features of each weighed case by what all cases but those of its fold say."""
    known: dict[int, Known] = {}
    for fold in folds_of(len(weighed), seed):
        held = {id(weighed[row]) for row in fold}
        others = shares_of([case for case in cases if id(case) not in held])
        for row in fold:
            case = weighed[row]
            right = {**others.right.get(EVERYWHERE, {}), **others.right.get(case.domain, {})}
            known[row] = Known(features_of(case, right, others.unknown), bool(case.right))
    return [known[row] for row in range(len(weighed))]


def _judges(cases: Sequence[Case]) -> dict[str, float]:
    """Returns how often each judge preferred an answer that was right, or another one than a wrong one."""
    given, good = Counter[str](), Counter[str]()
    for case in cases:
        for judged in case.evidence.judged:
            if judged.camp:
                given[judged.model] += 1
                good[judged.model] += (judged.camp == case.evidence.camp) == case.right
    return {
        model: round(Record(given[model], good[model]).shrunk(P_UNKNOWN, AGREEMENT_ROWS), 4) for model in sorted(given)
    }


def _promises(stated: Sequence[tuple[Case, float]], loss_max: float, level: float) -> dict[str, Promise]:
    """Returns from which confidence cascades may stop: an answer that is let pass and wrong is lost, all others not."""
    by_domain: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
    for case, sure in stated:
        if case.plan == "cascade":
            by_domain[EVERYWHERE].append((sure, bool(case.right)))
            by_domain[case.domain].append((sure, bool(case.right)))
    promises: dict[str, Promise] = {}
    for domain, rows in sorted(by_domain.items()):
        if domain != EVERYWHERE and len(rows) < LABELS_PROMISE_MIN:
            continue
        sures = sorted({sure for sure, _ in rows}, reverse=True)
        step = max(len(sures) // CANDIDATES, 1)
        chosen = learn_then_test(
            ((bound, [float(sure >= bound and not right) for sure, right in rows]) for bound in sures[::step]),
            loss_max,
            level,
        )
        promises[domain] = Promise(chosen.value, loss_max, level, chosen.loss, len(rows))
    return promises


def _measured(stated: Sequence[tuple[Case, float]]) -> dict[str, Measured]:
    by_domain: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
    for case, sure in stated:
        by_domain[EVERYWHERE].append((sure, bool(case.right)))
        if case.domain != EVERYWHERE:
            by_domain[case.domain].append((sure, bool(case.right)))
    return {
        domain: Measured(
            round(expected_calibration_error([sure for sure, _ in rows], [right for _, right in rows]), 4),
            len(rows),
            round(sum(right for _, right in rows) / len(rows), 4),
        )
        for domain, rows in sorted(by_domain.items())
    }
