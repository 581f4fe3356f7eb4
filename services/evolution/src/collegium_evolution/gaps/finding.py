"""Whether a domain is a gap, and how bad a one. Pure.

What is known of answers' accuracy comes from the strongest signal there is enough of: words of feedback, the agreement
of compared answers, or the confidence of verdicts. The upper bound is Hoeffding's, which holds for any scores between 0
and 1. One rule: gaps are ranked by size × shortfall × value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from collegium_contracts.domains import is_topic
from collegium_contracts.evolution import GapRow

Signal = Literal["feedback", "pairs", "confidence"]

# The strongest first.
STRENGTH: Final[tuple[Signal, ...]] = ("feedback", "pairs", "confidence")
# Fewer say nothing that a bound would not swallow.
KNOWN_MIN: Final = 20
# The bound is exceeded by chance in one of twenty looks at most.
RISK: Final = 0.05
# Domains that cost nothing are gaps too: a task counts as this much at least (a hundredth of a cent).
VALUE_PICOS_MIN: Final = 10**8
MONTH_DAYS: Final = 30


class Known(NamedTuple):
    """What is known of one domain: tasks settled and what they cost, and sums of scores (0 to 1) by signal.

    ``tenant`` empty: of all tenants. The signals are in order of strength. ``cluster`` (empty: all of it) is a
    discovered domain, of whose questions within ``domain`` it is known.
    """

    tenant: str
    domain: str
    settled: int
    cost_picos: int
    signals: tuple[tuple[Signal, int, float], ...]
    cluster: str = ""


def upper_bound(count: int, mean: float, risk: float = RISK) -> float:
    """Returns what the true mean of scores between 0 and 1 lies below, but for the risk."""
    return min(1.0, mean + math.sqrt(math.log(1 / risk) / (2 * count)))


def gap_of(known: Known, target: float, days: float) -> GapRow | None:
    """Returns the gap that a domain is; none where it is good enough, or too little is known.

    ``days`` is over how long the sums reach.
    """
    for signal, count, total in known.signals:
        if count < KNOWN_MIN:
            continue
        accuracy = total / count
        upper = upper_bound(count, accuracy)
        if upper >= target:
            return None
        value = max(known.cost_picos, known.settled * VALUE_PICOS_MIN) * MONTH_DAYS / days
        return GapRow(
            id="/".join((known.tenant or "*", known.domain, *([known.cluster] if known.cluster else []))),
            domain=known.domain,
            tenant=known.tenant,
            size=known.settled,
            judged=count,
            accuracy=round(accuracy, 4),
            upper=round(upper, 4),
            target=target,
            value_usd_picos=int(value),
            score=known.settled * (target - upper) * value / 1e12,
            signal=signal,
            cluster=known.cluster,
        )
    return None


def ranked(gaps: Iterable[GapRow | None]) -> list[GapRow]:
    """Returns gaps, the worst first."""
    return sorted((one for one in gaps if one is not None), key=lambda one: (-one.score, one.id))


def over_all(known: Iterable[Known]) -> list[Known]:
    """Returns what is known of each domain of all tenants together; discovered ones are one tenant's each."""
    by_domain: dict[str, list[Known]] = {}
    for one in known:
        if not is_topic(one.domain) and not one.cluster:
            by_domain.setdefault(one.domain, []).append(one)
    found: list[Known] = []
    for domain in sorted(by_domain):
        told = by_domain[domain]
        sums: dict[Signal, tuple[int, float]] = {}
        for one in told:
            for signal, count, total in one.signals:
                counted, summed = sums.get(signal, (0, 0.0))
                sums[signal] = (counted + count, summed + total)
        signals: list[tuple[Signal, int, float]] = []
        for signal in STRENGTH:
            if signal in sums:
                signals.append((signal, *sums[signal]))
        found.append(
            Known("", domain, sum(one.settled for one in told), sum(one.cost_picos for one in told), tuple(signals))
        )
    return found
