"""How fast a tenant or a key may ask: requests and tokens a minute, requests a day, tokens in a longer window. Pure.

Tokens are counted twice: as they were asked for while a task is open, and as they were used from then on. One rule:
what is refused counts nowhere.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_contracts.state import RateLimits

from collegium_billing.holds.windows import Amounts, RollingWindow

MINUTE_MS = 60_000
DAY_MS = 86_400_000


class Bound(NamedTuple):
    """One limit as it stands: how much there is, how much is left, when all of it is free again (Unix ms)."""

    name: str
    limit: int
    remaining: int
    resets_at_ms: int


class TooFast(NamedTuple):
    """A bound that leaves no room, and when it will (Unix ms)."""

    bound: Bound
    again_at_ms: int


class RateBook:
    """The windows of one tenant or key."""

    __slots__ = ("_day", "_limits", "_minute", "_open", "_open_tokens", "_token_minute", "_token_window")

    def __init__(
        self, limits: RateLimits, *, day_requests: Amounts | None = None, window_tokens: Amounts | None = None
    ) -> None:
        self._limits = limits
        self._minute = RollingWindow(MINUTE_MS)
        self._token_minute = RollingWindow(MINUTE_MS)
        self._day = RollingWindow(DAY_MS, day_requests or ())
        self._token_window = RollingWindow(limits.token_window_seconds * 1000, window_tokens or ())
        self._open = 0
        self._open_tokens = 0

    @property
    def limits(self) -> RateLimits:
        """The bounds as they were given."""
        return self._limits

    @property
    def open(self) -> int:
        """How many tasks are open."""
        return self._open

    def use(self, limits: RateLimits) -> None:
        """Changes the bounds; what was counted stays counted."""
        if limits.token_window_seconds != self._limits.token_window_seconds:
            self._token_window = RollingWindow(limits.token_window_seconds * 1000, self._token_window.amounts())
        self._limits = limits

    def full(self, now_ms: int) -> TooFast | None:
        """Returns the bound on requests that leaves no room for one more, or none."""
        for bound, window in self._request_bounds(now_ms):
            if bound.remaining < 1:
                return TooFast(bound, window.frees_at(1, now_ms) or now_ms)
        return None

    def count(self, requests: int, now_ms: int) -> None:
        """Counts requests that were over as soon as they came."""
        self._minute.add(now_ms, requests)
        self._day.add(now_ms, requests)

    def refusal(self, tokens: int, now_ms: int, *, has_place: bool = False) -> TooFast | None:
        """Returns what a request with so many tokens runs into, or none; nothing is counted.

        One that ``has_place`` is part of a request that is open.
        """
        if (full := self.full(now_ms)) is not None:
            return full
        for bound, window in self._token_bounds(now_ms):
            short = tokens - bound.remaining
            # A request larger than the whole limit may go when nothing else was counted: it could never go otherwise.
            if short > 0 and bound.remaining < bound.limit:
                return TooFast(bound, window.frees_at(min(short, window.total), now_ms) or now_ms + 1_000)
        limits = self._limits
        if limits.concurrency is not None and self._open >= limits.concurrency and not has_place:
            return TooFast(Bound("open requests", limits.concurrency, 0, now_ms + 1_000), now_ms + 1_000)
        return None

    def begin(self, tokens: int, now_ms: int) -> None:
        """Counts a request that was let in."""
        self._minute.add(now_ms, 1)
        self._day.add(now_ms, 1)
        self._open += 1
        self._open_tokens += tokens

    def end(self, asked_tokens: int, used_tokens: int, at_ms: int) -> None:
        """Counts what a request that was let in has used."""
        self._open = max(0, self._open - 1)
        self._open_tokens = max(0, self._open_tokens - asked_tokens)
        self.used(used_tokens, at_ms)

    def used(self, tokens: int, at_ms: int) -> None:
        """Counts tokens of a request that is not known to be open."""
        if tokens:
            self._token_minute.add(at_ms, tokens)
            self._token_window.add(at_ms, tokens)

    def requests(self, now_ms: int) -> list[Bound]:
        """Returns the bounds on requests."""
        return [bound for bound, _ in self._request_bounds(now_ms)]

    def tokens(self, now_ms: int) -> list[Bound]:
        """Returns the bounds on tokens."""
        return [bound for bound, _ in self._token_bounds(now_ms)]

    def slow(self) -> tuple[Amounts, Amounts]:
        """Returns what the day's requests and the longer window's tokens were, to make them again from."""
        return self._day.amounts(), self._token_window.amounts()

    def _request_bounds(self, now_ms: int) -> list[tuple[Bound, RollingWindow]]:
        found: list[tuple[Bound, RollingWindow]] = []
        limits = self._limits
        self._minute.forget(now_ms)
        self._day.forget(now_ms)
        if limits.requests_per_minute is not None:
            found.append(_bound("requests a minute", limits.requests_per_minute, self._minute, 0, now_ms))
        if limits.requests_per_day is not None:
            found.append(_bound("requests a day", limits.requests_per_day, self._day, 0, now_ms))
        return found

    def _token_bounds(self, now_ms: int) -> list[tuple[Bound, RollingWindow]]:
        found: list[tuple[Bound, RollingWindow]] = []
        limits = self._limits
        self._token_minute.forget(now_ms)
        self._token_window.forget(now_ms)
        asked = self._open_tokens
        if limits.tokens_per_minute is not None:
            found.append(_bound("tokens a minute", limits.tokens_per_minute, self._token_minute, asked, now_ms))
        if limits.tokens_per_window is not None:
            name = f"tokens in {limits.token_window_seconds} s"
            found.append(_bound(name, limits.tokens_per_window, self._token_window, asked, now_ms))
        return found


def tightest(bounds: list[Bound]) -> Bound | None:
    """Returns the bound of whose limit the smallest share is left."""
    return min(bounds, key=lambda bound: bound.remaining / bound.limit if bound.limit else 0.0, default=None)


def _bound(name: str, limit: int, window: RollingWindow, asked: int, now_ms: int) -> tuple[Bound, RollingWindow]:
    remaining = max(0, limit - window.total - asked)
    resets = max(now_ms, window.empties_at())
    return Bound(name, limit, remaining, resets), window
