"""How often decisions are wrong and how soon they are right, by simulation and exactly. Pure.

Every run is a student whose chance to win a discordant pair is stated, looked at after every pair. The exact figures
come from walking the distribution of wins from pair to pair, so that nothing is left to chance but the rounding of
floats. One rule: it asks the same functions as the live decision.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from collegium_learning.ranks import superiority
from collegium_learning.ranks.decisions import DEFAULT, STEPS, Rules, Step


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What became of students of one win rate in trials of at most ``pairs_max`` discordant pairs.

    ``share`` were promoted, after ``pairs_mean`` pairs; ``exact_share`` and ``exact_pairs_mean`` are the same without
    chance.
    """

    win_rate: float
    pairs_max: int
    runs: int
    share: float
    pairs_mean: float | None
    exact_share: float
    exact_pairs_mean: float | None


def wins_needed(pairs_max: int, rules: Rules = DEFAULT, step: Step = STEPS["ta"]) -> list[int]:
    """Returns from how many wins on a student is promoted, after 0, 1, … ``pairs_max`` discordant pairs.

    One more than there are pairs means: by none. The score is left out: it can only keep a student back.
    """
    needed: list[int] = []
    wins = 0
    for pairs in range(pairs_max + 1):
        # Too few wins of fewer pairs are too few of more; where no number was enough, nothing is known.
        wins = wins if wins < pairs else 0
        while wins <= pairs and not _promoted(wins, pairs, rules, step):
            wins += 1
        needed.append(wins)
    return needed


def _promoted(wins: int, pairs: int, rules: Rules, step: Step) -> bool:
    if pairs < step.pairs or wins / pairs < step.win_rate:
        return False
    return superiority.log_evidence(wins, pairs - wins) >= math.log(rules.odds)


def trials(
    win_rate: float, *, runs: int = 10_000, pairs_max: int = 300, seed: int = 0, rules: Rules = DEFAULT
) -> Found:
    """Returns how many students of one win rate are promoted, and when."""
    needed = np.array(wins_needed(pairs_max, rules))
    rng = np.random.default_rng(seed)
    wins: Any = np.zeros(runs, dtype=np.int64)
    when: Any = np.zeros(runs, dtype=np.int64)
    for pairs in range(1, pairs_max + 1):
        wins += rng.random(runs) < win_rate
        when[(when == 0) & (wins >= needed[pairs])] = pairs
    promoted = when > 0
    share, mean = exactly(win_rate, needed.tolist())
    return Found(
        win_rate=win_rate,
        pairs_max=pairs_max,
        runs=runs,
        share=float(promoted.mean()),
        pairs_mean=float(when[promoted].mean()) if promoted.any() else None,
        exact_share=share,
        exact_pairs_mean=mean,
    )


def exactly(win_rate: float, needed: list[int]) -> tuple[float, float | None]:
    """Returns the share that is promoted and after how many pairs on average."""
    standing: Any = np.zeros(len(needed) + 1)
    standing[0] = 1.0
    share = pairs_sum = 0.0
    for pairs in range(1, len(needed)):
        moved = standing * (1 - win_rate)
        moved[1:] += standing[:-1] * win_rate
        now = float(moved[needed[pairs] :].sum())
        moved[needed[pairs] :] = 0.0
        share += now
        pairs_sum += now * pairs
        standing = moved
    return share, pairs_sum / share if share else None
