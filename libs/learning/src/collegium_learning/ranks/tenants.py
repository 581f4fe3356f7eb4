"""One tenant cannot decide for the others, neither for a model nor against it. Pure.

Evidence for all tenants is what is left of it without the tenant that speaks for it most; so no tenant brings a rank
about alone, whatever it tells. Nor does it prevent one: the evidence is averaged over leaving out each tenant as a
possible liar before that, and an average of evidence is evidence. One rule: what a single tenant has brought about is
that tenant's alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from collegium_learning.ranks.pairs import Pairs, total

# Gives the logarithm of what pairs say.
Log = Callable[[Pairs], float]
# So many tenants must have told something for a decision about all.
VOICES_MIN = 2
# Who is left out as a possible liar: those that told most; the others' words weigh little.
SUSPECTS_MAX = 16
# Who is left out because they speak for it most: any of the others takes less of the evidence away.
SPEAKERS_MAX = 16


def log_for_all(told: Mapping[str, Pairs], evidence: Log) -> float:
    """Returns the logarithm of the evidence for all tenants; minus infinity where too few have told anything."""
    voices = {tenant: pairs for tenant, pairs in told.items() if pairs.count}
    if len(voices) < VOICES_MIN:
        return -math.inf
    everything = total(voices.values())
    suspects = sorted(voices, key=lambda tenant: (-voices[tenant].count, tenant))[:SUSPECTS_MAX]
    speakers = sorted(voices, key=lambda tenant: (voices[tenant].losses - voices[tenant].wins, tenant))[:SPEAKERS_MAX]
    if len(voices) == VOICES_MIN:
        return min(evidence(_without(everything, voices[tenant])) for tenant in speakers)
    logs: list[float] = []
    for liar in suspects:
        rest = _without(everything, voices[liar])
        logs.append(min(evidence(_without(rest, voices[one])) for one in speakers if one != liar))
    top = max(logs)
    return top + math.log(math.fsum(math.exp(one - top) for one in logs) / len(logs))


def trimmed(told: Mapping[str, Pairs]) -> Pairs:
    """Returns what is left without the tenant that speaks for a model most and the one that speaks against it most.

    Where only two have told anything it is all of it.
    """
    voices = {tenant: pairs for tenant, pairs in told.items() if pairs.count}
    found = total(voices.values())
    if len(voices) <= VOICES_MIN:
        return found
    by_balance = sorted(voices, key=lambda tenant: (voices[tenant].wins - voices[tenant].losses, tenant))
    return _without(_without(found, voices[by_balance[0]]), voices[by_balance[-1]])


def _without(pairs: Pairs, left_out: Pairs) -> Pairs:
    return Pairs(
        wins=pairs.wins - left_out.wins,
        losses=pairs.losses - left_out.losses,
        ties=pairs.ties - left_out.ties,
        score_sum=pairs.score_sum - left_out.score_sum,
    )
