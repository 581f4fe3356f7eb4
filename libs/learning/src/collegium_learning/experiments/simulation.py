"""How often an experiment is decided wrongly, and how soon rightly, looked at after every unit. Pure.

Every run is an experiment whose arms' qualities are stated: units arrive one by one, a fair coin gives each its arm,
and its word is right or wrong. It is decided the first time that the live bets reach their bar. One rule: it asks the
same functions as the live look.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from collegium_contracts.experiments import Guardrails

from collegium_learning.experiments import effects, splitting


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What became of experiments of one pair of qualities in at most ``units_max`` units.

    ``better`` and ``worse`` are shares of runs in which that was said of the candidate at any time, ``rolled_back`` by
    the guardrail of quality, ``mismatched`` of the split. ``units_mean`` is when the first of the two was said.
    """

    control: float
    candidate: float
    units_max: int
    runs: int
    better: float
    worse: float
    rolled_back: float
    mismatched: float
    units_mean: float | None


def trials(
    control: float, candidate: float, *, runs: int, units_max: int, seed: int = 0, level: float = 0.05
) -> Decided:
    """Returns how often and when experiments of stated qualities are decided."""
    rng = np.random.default_rng(seed)
    rails = Guardrails()
    bar, rail_bar = math.log(2.0 / level), math.log(len(Guardrails.__struct_fields__) / level)
    uneven = np.array(_uneven_from(units_max))
    counts = dict.fromkeys(("better", "worse", "rolled_back", "mismatched"), 0)
    whens: list[int] = []
    for _ in range(runs):
        given = rng.random(units_max) < 0.5
        words = (rng.random(units_max) < np.where(given, candidate, control)).astype(np.float64)
        found = effects.differences(words, given)
        better = _first(effects.paths(found, 0.0) >= bar)
        worse = _first(effects.paths(found.turned(), 0.0) >= bar)
        taken_back = _first(effects.paths(found.turned(), rails.quality) >= rail_bar)
        candidates = np.cumsum(given)
        larger = np.maximum(candidates, np.arange(1, units_max + 1) - candidates)
        mismatched = _first(larger >= uneven)
        for name, when in zip(counts, (better, worse, taken_back, mismatched), strict=True):
            counts[name] += when > 0
        if better or worse:
            whens.append(min(one for one in (better, worse) if one))
    shares = {name: count / runs for name, count in counts.items()}
    return Decided(
        control=control,
        candidate=candidate,
        units_max=units_max,
        runs=runs,
        units_mean=float(np.mean(whens)) if whens else None,
        **shares,
    )


def _first(reached: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Returns after how many units something was so first; 0 where it never was."""
    return int(reached.argmax()) + 1 if reached.any() else 0


def _uneven_from(units_max: int) -> list[int]:
    """Returns from how many units in one arm on a split of 1, 2, … units is said to be uneven."""
    bar, found, larger = math.log(splitting.ODDS), list[int](), 0
    for count in range(1, units_max + 1):
        larger = max(larger, (count + 1) // 2)
        while larger <= count and splitting.log_evidence(larger, count - larger) < bar:
            larger += 1
        found.append(larger)
    return found
