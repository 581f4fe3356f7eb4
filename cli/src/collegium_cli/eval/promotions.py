"""``collegium eval promotions``: how often a student is promoted that is no better, and how soon one is that is.

Students of stated win rates against their teacher are simulated pair by pair and looked at after every one; beside the
simulated figures stand the exact ones. One rule: it asks the functions that decide live.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from collegium_learning.ranks.decisions import DEFAULT
from collegium_learning.ranks.simulation import Found, trials

from collegium_cli.eval.reading import EvaluationError

WIN_RATES = (0.40, 0.50, 0.55, 0.60, 0.65, 0.70, 0.80)


def main(options: Any) -> int:
    """Prints one JSON object."""
    if not 100 <= options.runs <= 1_000_000 or not 30 <= options.pairs_max <= 5_000:
        raise EvaluationError("--runs takes 100 to 1000000, and --pairs-max 30 to 5000")
    began = time.monotonic()
    found: dict[str, Any] = {}
    for place, win_rate in enumerate(WIN_RATES):
        one = trials(win_rate, runs=options.runs, pairs_max=options.pairs_max, seed=options.seed + place)
        found[f"{win_rate:.2f}"] = _figures(one)
        print(f"win rate {win_rate:.2f}: {one.share:.4f} promoted", file=sys.stderr)
    about = {"runs": options.runs, "pairs_max": options.pairs_max, "odds": DEFAULT.odds}
    print(json.dumps({**about, "win_rates": found, "seconds": round(time.monotonic() - began, 1)}))
    return 0


def _figures(one: Found) -> dict[str, Any]:
    # Two standard errors of a share.
    apart = 2 * (one.share * (1 - one.share) / one.runs) ** 0.5
    return {
        "promoted": {"value": one.share, "low": max(0.0, one.share - apart), "high": min(1.0, one.share + apart)},
        "promoted_exactly": one.exact_share,
        "pairs_mean": one.pairs_mean,
        "pairs_mean_exactly": one.exact_pairs_mean,
    }
