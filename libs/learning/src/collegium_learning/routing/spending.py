"""Spending as a constraint: how much cheaper answers have to be for what is spent to come down to a target. Pure.

What is spent over a target is a debt, which time pays back at the target's rate. The debt is the price of quality: the
larger it is, the more may be lost against the best for a lower price (dual ascent on the constraint, in closed form).
One rule: a target is a wish, and bounded: however much was spent, no more quality is given away than PRESSURE_MAX says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

# A debt of a twentieth of a period's target doubles what may be lost; nothing makes it more than six times as much.
GAIN: Final = 20.0
PRESSURE_MAX: Final = 5.0
# What was not spent may be spent later, up to this share of a period's target; a debt counts no further than this.
CREDIT_MAX: Final = 0.05
DEBT_MAX: Final = 0.5


class Target(NamedTuple):
    """What may be spent (pico-dollars) in each period of so many milliseconds."""

    picos: int
    period_ms: int


class _Debt(NamedTuple):
    """In shares of a period's target; below zero: a credit."""

    share: float
    at_ms: int


class Spending:
    """What was spent beside targets, by name; names without a target count nothing."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = dict(targets)
        self._debts: dict[str, _Debt] = {}

    def spent(self, name: str, picos: int, now_ms: int) -> None:
        """Notes what was charged under a name."""
        target = self._targets.get(name)
        if target is not None:
            share = min(DEBT_MAX, self._debt(name, target, now_ms) + picos / target.picos)
            self._debts[name] = _Debt(share, now_ms)

    def pressure(self, name: str, now_ms: int) -> float:
        """Returns how much more may be lost, as a multiple of the tolerance; 0 within the target."""
        target = self._targets.get(name)
        if target is None:
            return 0.0
        return min(PRESSURE_MAX, GAIN * max(0.0, self._debt(name, target, now_ms)))

    def keep(self, targets: Mapping[str, Target]) -> None:
        """Takes other targets; what was spent under names that keep theirs stays."""
        self._debts = {name: debt for name, debt in self._debts.items() if targets.get(name) == self._targets[name]}
        self._targets = dict(targets)

    def kept(self) -> dict[str, tuple[Target, float, int]]:
        """Returns what is kept of it by name: the target, the debt as a share of it, and when that was."""
        return {name: (self._targets[name], debt.share, debt.at_ms) for name, debt in self._debts.items()}

    def load(self, name: str, target: Target, share: float, at_ms: int, now_ms: int) -> None:
        """Adds a debt that was kept; one against a target that is another now counts no more."""
        if self._targets.get(name) != target:
            return
        since = self._debt(name, target, now_ms)
        left = max(-CREDIT_MAX, share - max(0, now_ms - at_ms) / target.period_ms)
        self._debts[name] = _Debt(max(-CREDIT_MAX, min(DEBT_MAX, since + left)), now_ms)

    def forget(self, name: str) -> None:
        """Forgets the debt of a name."""
        self._debts.pop(name, None)

    def _debt(self, name: str, target: Target, now_ms: int) -> float:
        last = self._debts.get(name)
        if last is None:
            return 0.0
        return max(-CREDIT_MAX, last.share - max(0, now_ms - last.at_ms) / target.period_ms)
