"""What benchmarks make of what they measured: percentiles, rates, shares, slopes, verdicts. Pure.

One rule: a figure that cannot be formed is none, never zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

# Of a window's completions, so few are a matter of chance.
WINDOW_COMPLETIONS_MIN = 100


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Returns the value below which that share of the ordered values lies; none where there are none."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values_ms: Iterable[float]) -> dict[str, float | None]:
    """Returns count, p50, p90, p99 and maximum of durations in milliseconds."""
    ordered = sorted(values_ms)
    figures: dict[str, float | None] = {"count": len(ordered)}
    for name, share in (("p50_ms", 0.50), ("p90_ms", 0.90), ("p99_ms", 0.99), ("max_ms", 1.0)):
        value = percentile(ordered, share)
        figures[name] = None if value is None else round(value, 2)
    return figures


def per_second(count: int, began_ms: float, ended_ms: float) -> float | None:
    """Returns a rate; none where nothing happened or no time passed."""
    if count == 0 or ended_ms <= began_ms:
        return None
    return round(count * 1000 / (ended_ms - began_ms), 1)


def steady_rate(times_ms: Sequence[float]) -> float | None:
    """Returns the rate of the middle eight tenths of ordered events, free of the start's and the end's shape."""
    tenth = len(times_ms) // 10
    if tenth == 0:
        return None
    return per_second(len(times_ms) - 2 * tenth, times_ms[tenth], times_ms[len(times_ms) - tenth - 1])


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Returns the least-squares slope of y over x; none for fewer than two different x."""
    if len({x for x, _ in points}) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread_x = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread_x


def settled_slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Returns the slope over the last two thirds of the points: caches and pools fill in the first."""
    return slope(points[len(points) // 3 :])


def contended_window(
    filled_ms: float, settled_ms: Mapping[str, Sequence[float]], backlog: int
) -> tuple[float, float] | None:
    """Returns when all tenants were backlogged, as (from, to) in Unix ms; none where they never were at once.

    From when the last one's backlog was complete, to when the first one had a tenth of it left, because what was
    dispatched before that is out of the dispatcher's hands; to the last settlement where none got so far.
    """
    nine_tenths = int(backlog * 0.9)
    ends = [sorted(times)[nine_tenths - 1] for times in settled_ms.values() if 0 < nine_tenths <= len(times)]
    latest = max((max(times) for times in settled_ms.values() if times), default=filled_ms)
    ended = min(ends, default=latest)
    return (filled_ms, ended) if ended > filled_ms else None


def shares(settled_ms: Mapping[str, Sequence[float]], window: tuple[float, float]) -> dict[str, float] | None:
    """Returns each tenant's share of what settled within the window; none where it was too little to tell."""
    counts = Counter({tenant: sum(window[0] < at <= window[1] for at in times) for tenant, times in settled_ms.items()})
    total = counts.total()
    if total < WINDOW_COMPLETIONS_MIN:
        return None
    return {tenant: counts[tenant] / total for tenant in settled_ms}


def share_errors(found: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Returns by how much each share misses what its weight promises, relative to the promise (0.1: ten per cent)."""
    total = sum(weights.values())
    return {tenant: found[tenant] / (weight / total) - 1 for tenant, weight in weights.items()}


def wait_limit_ms(alone_p99_ms: float, service_ms: float) -> float:
    """Returns the longest p99 wait allowed beside a greedy neighbour: twice alone or one service time more."""
    return max(2 * alone_p99_ms, alone_p99_ms + service_ms)


def longest_gap_ms(times_ms: Iterable[float], began_ms: float, ended_ms: float) -> float:
    """Returns the longest time within [began, ended] in which nothing happened."""
    inside = sorted(at for at in times_ms if began_ms <= at <= ended_ms)
    edges = [began_ms, *inside, ended_ms]
    return max(after - before for before, after in pairwise(edges))
