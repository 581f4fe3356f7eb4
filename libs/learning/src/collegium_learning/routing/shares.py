"""Keeping ranks to their shares of tasks: a penalty for each rank, moved after every choice. Pure.

A rank above its share loses a little worth each time it is chosen, one below gains it back (dual ascent; the step is
small beside differences of quality that matter). One rule: shares are wishes; a rank's worth is never lowered so far
that a question goes to a model that is known to be much worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collegium_contracts.parts import Rank

STEP: Final = 0.004
PENALTY_MAX: Final = 0.25


class Shares:
    """The penalties of ranks under wanted shares; without any wanted, there are none."""

    def __init__(self, wanted: Mapping[Rank, float]) -> None:
        self._wanted = dict(wanted)
        self.penalties: dict[Rank, float] = dict.fromkeys(self._wanted, 0.0)

    def chose(self, rank: Rank) -> None:
        """Notes whom a task went to."""
        for one, share in self._wanted.items():
            moved = self.penalties[one] + STEP * (float(one == rank) - share)
            self.penalties[one] = min(PENALTY_MAX, max(-PENALTY_MAX, moved))
