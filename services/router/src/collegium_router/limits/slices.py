"""Dividing a resource among routers. Pure.

Every router may use its slice and no more, and the slices are written to one value by compare-and-set, so their sum
never passes the capacity. One rule: a slice grows only into what others have given up, or let expire.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from collegium_contracts.state import Share, Shares

LEASE_MS = 6_000


def divide(capacity: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Divides permits by max-min fairness over what is wanted, and spreads what nobody wants evenly.

    So an idle router keeps a slice to begin with, and a busy one gets what the idle ones do not use.
    """
    names = sorted(wanted)
    given = dict.fromkeys(names, 0)
    left = max(0, capacity)
    hungry = [name for name in names if wanted[name] > 0]
    while left > 0 and hungry:
        portion = max(1, left // len(hungry))
        for name in list(hungry):
            step = min(portion, wanted[name] - given[name], left)
            given[name] += step
            left -= step
            if given[name] >= wanted[name]:
                hungry.remove(name)
    for index, name in enumerate(names):
        given[name] += left // len(names) + (index < left % len(names))
    return given


def renew(
    standing: Shares, me: str, *, capacity: int, wanted: int, in_use: int, now_ms: int, gone: Collection[str] = ()
) -> Shares:
    """Returns the shares with this router's slice as it should be now, and without those of routers that are gone.

    Whether another is gone is not read from its ``expires_ms``, which is of its own clock. The slice shrinks no further
    than what is in use, and grows no further than the others leave: those who want more get it at their own next
    renewal.
    """
    others = {name: share for name, share in standing.shares.items() if name != me and name not in gone}
    target = divide(capacity, {**{name: share.wanted for name, share in others.items()}, me: wanted})[me]
    free = max(0, capacity - sum(share.permits for share in others.values()))
    mine = Share(permits=min(max(target, min(in_use, capacity)), free), wanted=wanted, expires_ms=now_ms + LEASE_MS)
    return Shares(resource=standing.resource, capacity=capacity, shares={**others, me: mine})


def without(standing: Shares, me: str) -> Shares:
    """Returns the shares after a router gave its slice back."""
    return msgspec.structs.replace(
        standing, shares={name: share for name, share in standing.shares.items() if name != me}
    )
