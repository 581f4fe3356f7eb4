"""``collegium eval experiments``: how often an experiment is decided wrongly, and how soon rightly.

Experiments of stated qualities are simulated unit by unit and looked at after every one. One rule: it asks the
functions that decide live.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from collegium_learning.experiments.simulation import Decided, trials

from collegium_cli.eval.reading import EvaluationError

# Equal ones first: the share of those that are decided is what is promised.
QUALITIES = ((0.5, 0.5), (0.8, 0.8), (0.95, 0.95), (0.8, 0.82), (0.8, 0.85), (0.8, 0.9), (0.8, 0.7))


def main(options: Any) -> int:
    """Prints one JSON object."""
    if not 100 <= options.runs <= 100_000 or not 50 <= options.units_max <= 50_000:
        raise EvaluationError("--runs takes 100 to 100000, and --units-max 50 to 50000")
    if not 0.001 <= options.level <= 0.2:
        raise EvaluationError("--level takes .001 to .2")
    began = time.monotonic()
    found: dict[str, Any] = {}
    for place, (control, candidate) in enumerate(QUALITIES):
        one = trials(
            control,
            candidate,
            runs=options.runs,
            units_max=options.units_max,
            seed=options.seed + place,
            level=options.level,
        )
        found[f"{control:.2f} and {candidate:.2f}"] = _figures(one)
        print(f"{control:.2f} and {candidate:.2f}: {one.better:.4f} better, {one.worse:.4f} worse", file=sys.stderr)
    about = {"runs": options.runs, "units_max": options.units_max, "level": options.level}
    print(json.dumps({**about, "qualities": found, "seconds": round(time.monotonic() - began, 1)}))
    return 0


def _figures(one: Decided) -> dict[str, Any]:
    shares = {name: getattr(one, name) for name in ("better", "worse", "rolled_back", "mismatched")}
    return {name: _share(value, one.runs) for name, value in shares.items()} | {"units_mean": one.units_mean}


def _share(share: float, runs: int) -> dict[str, float]:
    # Two standard errors of a share.
    apart = 2 * (share * (1 - share) / runs) ** 0.5
    return {"value": share, "low": max(0.0, share - apart), "high": min(1.0, share + apart)}
