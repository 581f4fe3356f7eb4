"""What probes may cost: a share of what work was charged, earned before it is spent. Pure.

The most that a probe may cost is taken before it is asked, and what it did not cost is given back when it has ended;
one whose end was not heard of counts as spent once its time is over.
One rule: what is kept of it and taken over again is what was earned and all that may have been spent of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collegium_contracts.spending import ProbeOut

# Probes whose bounds are remembered; of what is beyond, the whole bound counts as spent. All of them fit one value of
# a bucket.
OUT_MAX: Final = 10_000


class Allowance:
    """Pico-dollars that probes may cost; ``share`` of each charge is earned."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._earned = 0.0
        self._spent = 0
        self._out: dict[str, ProbeOut] = {}

    def earn(self, charge_picos: int) -> None:
        """Notes that work was charged."""
        self._earned += self.share * charge_picos

    def spend(self, probe: str, bound_picos: int, until_ms: int) -> bool:
        """Takes the most that a probe may cost; false where it is not covered, and nothing is taken.

        It has surely ended at ``until_ms`` (Unix).
        """
        if probe in self._out:
            return True
        if self._spent + bound_picos > self._earned:
            return False
        self._spent += bound_picos
        if len(self._out) < OUT_MAX:
            self._out[probe] = ProbeOut(picos=bound_picos, until_ms=until_ms)
        return True

    def ended(self, probe: str, cost_picos: int) -> None:
        """Gives back what a probe did not cost; a task that is none of them changes nothing."""
        out = self._out.pop(probe, None)
        if out is not None:
            self._spent += min(cost_picos, out.picos) - out.picos

    def forget(self, now_ms: int) -> None:
        """Forgets the probes that have surely ended: nobody heard at what cost, so they stay spent."""
        over = [probe for probe, out in self._out.items() if out.until_ms <= now_ms]
        for probe in over:
            del self._out[probe]

    def kept(self) -> tuple[float, int, dict[str, ProbeOut]]:
        """Returns what is kept of it: what was earned, the most that was spent, and of each probe that is out."""
        return self._earned, self._spent, dict(self._out)

    def load(self, earned: float, spent: int, out: Mapping[str, ProbeOut]) -> None:
        """Adds what was kept before; of a probe that was taken here too the bound counts once."""
        again = sum(one.picos for probe, one in out.items() if probe in self._out)
        self._earned += earned
        self._spent += spent - again
        self._out = dict(list((dict(out) | self._out).items())[-OUT_MAX:])
