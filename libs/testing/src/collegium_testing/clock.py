"""Time that moves only when a test says so.

Here: `VirtualClock`. Not here: the system's clock, which services take from the standard library.
The one rule: time never goes backwards.
"""

from fractions import Fraction

_NANOSECONDS_PER_SECOND = 1_000_000_000


class VirtualClock:
    """Stands still at a chosen instant until `advance` is called.

    It fits wherever a callable `now() -> float` in unix seconds is asked for: pass `clock.now`, or the clock
    itself where an object with that method is expected. Kept as whole nanoseconds, so many small steps add up
    exactly.
    """

    def __init__(self, start_seconds: float = 1_767_225_600.0) -> None:
        self._start_ns = _nanoseconds(start_seconds)
        self._elapsed_ns = 0

    def now(self) -> float:
        """Returns unix time in seconds."""
        return self.now_ns() / _NANOSECONDS_PER_SECOND

    def now_ns(self) -> int:
        """Returns unix time in whole nanoseconds."""
        return self._start_ns + self._elapsed_ns

    def monotonic(self) -> float:
        """Returns the seconds advanced since the clock was made."""
        return self._elapsed_ns / _NANOSECONDS_PER_SECOND

    def advance(self, seconds: float) -> float:
        """Moves time forward and returns the new `now()`; raises ValueError for a negative step."""
        if seconds < 0:
            message = f"time does not go backwards: advance({seconds!r}) needs a step of 0 seconds or more"
            raise ValueError(message)
        self._elapsed_ns += _nanoseconds(seconds)
        return self.now()


def _nanoseconds(seconds: float) -> int:
    # A decimal literal such as 0.1 means a tenth, not the nearest binary float times 10**9.
    return round(Fraction(repr(float(seconds))) * _NANOSECONDS_PER_SECOND)
