"""What a replay prints: cost and quality beside always asking the teacher, on the same rows. Pure.

Rows are resampled whole, so that what is said of a difference is said of the same questions. One rule: what probes cost
stands beside every sum that leaves it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from collegium_learning.routing.lessons import Doubles

from collegium_cli.eval.reading import RESAMPLED
from collegium_cli.eval.replaying.asking import Replayed, Served

WINDOW: Final = 100
# Columns of what is resampled.
COST, TEACHER_COST, SCORE, TEACHER_SCORE = range(4)


def figures(replayed: Replayed, after: int, seed: int) -> dict[str, Any]:
    """Returns the figures of a replay; ``after`` so many rows the marginal ones begin."""
    served = replayed.served
    table = _table(served)
    spent, teacher = float(table[:, COST].sum()), float(table[:, TEACHER_COST].sum())
    probes = replayed.probes[-1][1] if replayed.probes else 0.0
    marginal = table[after:] if len(table) > after else table[:0]
    return {
        "rows": len(served),
        "feedback_told": replayed.told,
        "rounds": replayed.rounds,
        "marginal": {"after": after, **compared(marginal, seed)} if len(marginal) else None,
        "cumulative": {
            **compared(table, seed),
            "probes_usd": _dollars(probes),
            "with_probes_usd": _dollars(spent + probes),
            "saving_with_probes": round(1.0 - (spent + probes) / teacher, 4) if teacher else 0.0,
        },
        "windows": [
            {"rows": [start, min(start + WINDOW, len(table))], **compared(table[start : start + WINDOW], seed)}
            for start in range(0, len(table), WINDOW)
        ],
        "share": _shares(served),
        "share_after": _shares(served[after:]),
        "asked_mean": round(sum(one.asked for one in served) / len(served), 3) if served else 0.0,
    }


def compared(table: Doubles, seed: int) -> dict[str, Any]:
    """Returns cost and quality of rows beside the teacher's, with 95 % intervals (bootstrap over rows)."""
    drawn = np.random.default_rng(seed)
    samples = [table[drawn.integers(0, len(table), len(table))] for _ in range(RESAMPLED)]

    def figure(of: Callable[[Doubles], float]) -> dict[str, float]:
        low, high = np.percentile([of(sample) for sample in samples], [2.5, 97.5])
        return {"value": round(of(table), 4), "low": round(float(low), 4), "high": round(float(high), 4)}

    return {
        "queries": len(table),
        "cost_usd": _dollars(float(table[:, COST].sum())),
        "teacher_cost_usd": _dollars(float(table[:, TEACHER_COST].sum())),
        "saving": figure(_saving),
        "quality": figure(lambda rows: float(rows[:, SCORE].mean())),
        "teacher_quality": figure(lambda rows: float(rows[:, TEACHER_SCORE].mean())),
        "quality_change": figure(lambda rows: float((rows[:, SCORE] - rows[:, TEACHER_SCORE]).mean())),
    }


def curve_of(replayed: Replayed) -> list[dict[str, float]]:
    """Returns the learning curve: after each stop, what the rows since the last one and all so far cost and reached."""
    table = _table(replayed.served)
    points: list[dict[str, float]] = []
    start = 0
    for end, probes in replayed.probes:
        part, whole = table[start:end], table[:end]
        spent, teacher = float(whole[:, COST].sum()), float(whole[:, TEACHER_COST].sum())
        points.append(
            {
                "queries": end,
                "cost_share": round(1.0 - _saving(part), 6),
                "quality": round(float(part[:, SCORE].mean()), 6),
                "teacher_quality": round(float(part[:, TEACHER_SCORE].mean()), 6),
                "cumulative_cost_usd": _dollars(spent),
                "cumulative_probes_usd": _dollars(probes),
                "cumulative_teacher_usd": _dollars(teacher),
                "cumulative_cost_share": round(spent / teacher if teacher else 0.0, 6),
                "cumulative_cost_share_with_probes": round((spent + probes) / teacher if teacher else 0.0, 6),
            }
        )
        start = end
    return points


def _table(served: Sequence[Served]) -> Doubles:
    rows = [(one.cost_usd, one.teacher_cost_usd, one.score, one.teacher_score) for one in served]
    return np.array(rows, np.float64).reshape(-1, 4)


def _saving(rows: Doubles) -> float:
    teacher = float(rows[:, TEACHER_COST].sum())
    return 1.0 - float(rows[:, COST].sum()) / teacher if teacher else 0.0


def _shares(served: Sequence[Served]) -> dict[str, float]:
    counted = Counter(one.model for one in served)
    return {model: round(count / len(served), 4) for model, count in counted.most_common()}


def _dollars(value: float) -> float:
    return round(value, 10)
