"""How often the cheaper of two may answer with a proven bound on what that loses (learn-then-test). Pure.

The gain from which the dearer one is asked is raised step by step; each step is tested on outcomes whose gains were
expected without them, at the full level, and the first that fails ends it (fixed sequence testing: Angelopoulos et al.,
arXiv 2110.01052). One rule: what is not proven is asked of the dearer one.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from collegium_contracts.policies import Proof

from collegium_learning.confidence.thresholds import GAIN_LEVEL, proven_gain
from collegium_learning.routing.lessons import Doubles

LOSSES: Final = (0.01, 0.02, 0.03, 0.05)


def prove(
    weak: str, strong: str, gains: Doubles, lost: Doubles, loss_max: float, level: float = GAIN_LEVEL
) -> Proof | None:
    """Returns the boldest proven use of ``weak``; none where none is. ``lost`` is strong less weak of each row."""
    known = ~(np.isnan(gains) | np.isnan(lost))
    gains, lost = gains[known], lost[known]
    gain_max = proven_gain(gains, lost, loss_max, level)
    if gain_max is None:
        return None
    return Proof(
        weak=weak,
        strong=strong,
        loss_max=loss_max,
        gain_max=gain_max,
        weak_share=float((gains <= gain_max).mean()),
        rows=len(gains),
        level=level,
    )


def p_value(losses: Doubles, loss_max: float) -> float:
    """Returns how probable a mean loss this low would be if the true one were above ``loss_max``."""
    rows = len(losses)
    mean = float(losses.mean())
    # One more row with the whole loss: identical losses prove nothing about what was not seen.
    spread = (float(((losses - mean) ** 2).sum()) + 1.0) / rows
    return 0.5 * math.erfc((loss_max - mean) / math.sqrt(2.0 * spread / rows))
