"""What is known of an experiment at a moment: effects, guardrails, the split, and a verdict. Pure.

Quality decides; errors, refusals, slowness and cost are looked after. Slowness and cost have no scale of their own, so
the control's first units give them one and speak for nothing else: its p95 is what is slow, eight times its mean the
most that a task counts for. Of the guardrails each is asked for evidence of as many to one as there are of them over
the level, so that an equal candidate is taken back with a chance of the level, however long it runs. One rule: a
guardrail that is breached stays so, because its evidence was enough once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from collegium_contracts.experiment_requests import Effect, Interleaved
from collegium_contracts.experiments import Guardrails

from collegium_learning.experiments import effects, splitting
from collegium_learning.experiments.effects import Column, Differences, Interval
from collegium_learning.ranks import superiority

# Units of the control that give slowness and cost their scale.
SCALING_UNITS: Final = 50
SLOW_QUANTILE: Final = 0.95
COST_REACH: Final = 8.0
Verdict = Literal["open", "better", "as_good", "worse"]


class Unit(NamedTuple):
    """A unit's first task, in order of arrival; ``tenant`` is whose."""

    is_candidate: bool
    failed: bool
    refused: bool
    duration_ms: float
    cost_picos: float
    tenant: str = ""


class Word(NamedTuple):
    """A unit's first word about an answer (0 to 1), in order of words; ``tenant`` is whose."""

    is_candidate: bool
    score: float
    tenant: str = ""


class Terms(NamedTuple):
    """What an experiment was begun with: its level, the margin of ``as_good``, its guardrails."""

    level: float
    margin: float
    guardrails: Guardrails


class Found(NamedTuple):
    """What is known: a verdict, effects with their guardrails, and the odds against an even split."""

    verdict: Verdict
    effects: list[Effect]
    mismatch_odds: float
    is_mismatched: bool

    @property
    def breached(self) -> list[Effect]:
        """The guardrails that are breached."""
        return [one for one in self.effects if one.breached]


def look(units: Sequence[Unit], words: Sequence[Word], terms: Terms) -> Found:
    """Returns what is known from units and words in order of arrival."""
    rails = terms.guardrails
    candidate = _bools([unit.is_candidate for unit in units])
    told = _bools([word.is_candidate for word in words])
    quality = effects.differences(_floats([min(max(word.score, 0.0), 1.0) for word in words]), told)
    found = [_effect("quality", quality, terms, rails.quality, is_good=True)]
    for metric, rail in (("errors", rails.errors), ("refusals", rails.refusals)):
        values = [unit.failed if metric == "errors" else unit.refused for unit in units]
        found.append(_effect(metric, effects.differences(_floats(values), candidate), terms, rail))
    found += _scaled(units, candidate, terms)
    odds = splitting.log_evidence(int(candidate.sum()), len(units) - int(candidate.sum()))
    is_mismatched = odds >= math.log(splitting.ODDS)
    verdict = "open" if is_mismatched else _verdict(quality, found[0], terms)
    return Found(verdict, found, _exp(odds), is_mismatched)


def interleaved(asked: int, same: int, candidate_won: int, control_won: int) -> Interleaved:
    """Returns what questions say that both arms answered; equal arms win half each."""
    odds = _exp(superiority.log_evidence(candidate_won, control_won)) if candidate_won + control_won else 0.0
    return Interleaved(
        asked=asked, same=same, candidate_won=candidate_won, control_won=control_won, odds=round(odds, 3)
    )


def _verdict(quality: Differences, effect: Effect, terms: Terms) -> Verdict:
    if not quality.spoken:
        return "open"
    if effect.low > 0.0:
        return "better"
    if effect.high < 0.0:
        return "worse"
    return "as_good" if effect.low > -terms.margin else "open"


def _scaled(units: Sequence[Unit], candidate: np.ndarray[Any, np.dtype[np.bool_]], terms: Terms) -> list[Effect]:
    """Slowness and cost, from after the units that give them their scale."""
    controls = np.flatnonzero(~candidate)
    if len(controls) < SCALING_UNITS:
        return []
    first = int(controls[SCALING_UNITS - 1]) + 1
    scale = [units[place] for place in controls[:SCALING_UNITS]]
    slow_ms = float(np.quantile([unit.duration_ms for unit in scale], SLOW_QUANTILE, method="higher"))
    mean_picos = max(float(np.mean([unit.cost_picos for unit in scale])), 1.0)
    later, given = units[first:], candidate[first:]
    slow = effects.differences(_floats([unit.duration_ms > slow_ms for unit in later]), given)
    reach = COST_REACH * mean_picos
    cost = effects.differences(_floats([min(unit.cost_picos / reach, 1.0) for unit in later]), given)
    rails = terms.guardrails
    # Above 1 it is off, as every rail; only one that is asked about is scaled as its units are.
    found = _effect("cost", cost, terms, rails.cost / COST_REACH if rails.cost <= 1.0 else rails.cost)
    as_share = found.value * COST_REACH, found.low * COST_REACH, found.high * COST_REACH
    return [
        _effect("slow", slow, terms, rails.slow),
        Effect(
            metric="cost", units=found.units, value=as_share[0], low=as_share[1], high=as_share[2],
            guardrail=rails.cost, odds=found.odds, needed=found.needed, breached=found.breached,
        ),
    ]  # fmt: skip


def _effect(metric: str, differences: Differences, terms: Terms, rail: float, *, is_good: bool = False) -> Effect:
    """More of a metric that ``is_good`` is better; a rail above its reach is never asked about."""
    between: Interval = effects.interval(differences, terms.level)
    needed = len(Guardrails.__struct_fields__) / terms.level
    odds = 0.0
    if rail <= 1.0 and differences.spoken:
        # The most it ever was, so that later outcomes take nothing back that was decided by it.
        path = effects.paths(differences.turned() if is_good else differences, rail)
        odds = _exp(float(path.max()))
    return Effect(
        metric=metric,
        units=differences.spoken,
        value=between.value,
        low=between.low,
        high=between.high,
        guardrail=rail,
        odds=round(odds, 3),
        needed=needed,
        breached=odds >= needed,
    )


def _bools(values: list[bool]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array(values, dtype=np.bool_)


def _floats(values: Sequence[float]) -> Column:
    return np.array(values, dtype=np.float64)


def _exp(logarithm: float) -> float:
    return math.exp(min(logarithm, 600.0))
