"""Counting what happens too often to be recorded one by one. Pure.

Of everything with the same key the first in a window is told at once, and at the window's end how many more there were.
One rule: memory is bounded; beyond ``max_keys`` in a window a key is not told apart from the others.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Counted(NamedTuple, Generic[K]):
    """How many more of a key there were after its first, since ``since_ms``."""

    key: K
    more: int
    since_ms: int


class Counting(Generic[K]):
    """Counts by key in windows that begin with a key's first."""

    def __init__(self, window_ms: int, max_keys: int) -> None:
        self._window_ms = window_ms
        self._max_keys = max_keys
        self._windows: dict[K, tuple[int, int]] = {}

    def note(self, key: K, others: K, now_ms: int) -> K | None:
        """Notes one; returns the key to be told of at once, ``others`` where there is no room, or none."""
        found = self._windows.get(key)
        if found is None and len(self._windows) >= self._max_keys:
            key = others
            found = self._windows.get(key)
        if found is None:
            self._windows[key] = (now_ms, 0)
            return key
        self._windows[key] = (found[0], found[1] + 1)
        return None

    def ended(self, now_ms: int) -> list[Counted[K]]:
        """Ends the windows that are over; returns those in which there was more than the first."""
        over = [key for key, (since, _) in self._windows.items() if now_ms - since >= self._window_ms]
        found = [Counted(key, self._windows[key][1], self._windows[key][0]) for key in over]
        for key in over:
            del self._windows[key]
        return [one for one in found if one.more]

    def rest(self) -> list[Counted[K]]:
        """Ends all windows, at the end of the process."""
        found = [Counted(key, count, since) for key, (since, count) in self._windows.items() if count]
        self._windows.clear()
        return found
