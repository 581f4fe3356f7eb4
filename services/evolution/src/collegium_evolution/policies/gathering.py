"""From judged answers to lessons: columns of what was seen of each question and what came of who answered it.

What second answers tell of differences is filled in once it is known who ranks where (``compared``).

One rule: features of another embedder than the newest are as good as none, and so are those whose key is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from collegium_bus.slices import in_slices
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.routing import FEATURES_PURPOSE
from collegium_learning.domains.mapping import Mapper
from collegium_learning.routing.choosing import RANK_ORDER
from collegium_learning.routing.features import Floats, unpack
from collegium_learning.routing.lessons import Lessons
from collegium_learning.routing.seconds import Second, completed

from collegium_evolution.domains.discovering import as_domain
from collegium_evolution.policies.decided_store import Judged


class Gathered(NamedTuple):
    """Lessons of one tenant, the answers they were made of, and the embedder of their rows (empty: there are none)."""

    lessons: Lessons
    judged: Sequence[Judged]
    embedder: str


async def gathered(keyring: Keyring, tenant: str, judged: Sequence[Judged], mapper: Mapper | None = None) -> Gathered:
    """Returns a tenant's lessons; there is at least one answer. What named no domain is of the one it is found to be.

    By ``mapper``, which says of which discovered domain a question is.
    """
    rows: list[tuple[str, Floats | None]] = []
    async for some in in_slices(judged):
        rows += [(one.of.embedder, await _row(keyring, tenant, one)) for one in some]
    seen = Counter((embedder, len(row)) for embedder, row in rows if row is not None)
    # The newest question says which embedder there is now.
    newest = next(((embedder, len(row)) for embedder, row in reversed(rows) if row is not None), ("", 1))
    width = newest[1] if seen else 1
    models = tuple(sorted({name for one in judged for name in (one.of.model, *(other for other, _ in one.again))}))
    place = {model: at for at, model in enumerate(models)}
    table = np.zeros((len(judged), width), np.float32)
    has_row = np.zeros(len(judged), bool)
    scores, costs, seconds = (np.full((len(judged), len(models)), np.nan) for _ in range(3))
    for at, (one, (embedder, row)) in enumerate(zip(judged, rows, strict=True)):
        column = place[one.of.model]
        scores[at, column] = np.nan if one.score is None else one.score
        costs[at, column] = one.of.cost_picos / 1e12
        seconds[at, column] = one.of.duration_ms / 1000
        if row is not None and (embedder, len(row)) == newest:
            table[at], has_row[at] = row, True
    domains = tuple(
        _domain(mapper, one.of.domain, embedder, row) for one, (embedder, row) in zip(judged, rows, strict=True)
    )
    return Gathered(Lessons(models, domains, table, has_row, scores, costs, seconds), judged, newest[0])


def _domain(mapper: Mapper | None, named: str, embedder: str, row: Floats | None) -> str:
    if mapper is None or named or row is None:
        return as_domain(named, mapper)
    return mapper.of(embedder, row)


def compared(of: Gathered, ranks: Mapping[str, int]) -> Gathered:
    """Returns lessons with what second answers tell; as they are where there are none.

    ``ranks`` (0: the highest) says who of two that differ is more likely to be right; others are compared with whoever
    of the highest rank answered most.
    """
    lessons = of.lessons
    place = {model: at for at, model in enumerate(lessons.models)}
    seconds = [
        Second(at, place[one.of.model], place[other], same)
        for at, one in enumerate(of.judged)
        for other, same in one.again
        if other != one.of.model
    ]
    if not seconds:
        return of
    merit = [float(ranks.get(model, max(RANK_ORDER.values()) + 1)) for model in lessons.models]
    asked = Counter(one.of.model for one in of.judged)
    reference = min(range(len(merit)), key=lambda at: (merit[at], -asked[lessons.models[at]], lessons.models[at]))
    return of._replace(lessons=completed(lessons, seconds, merit, reference))


async def _row(keyring: Keyring, tenant: str, judged: Judged) -> Floats | None:
    sealed = judged.of.features
    if sealed is None:
        return None
    try:
        await held(keyring, tenant, sealed)
        return unpack(keyring.open(tenant, sealed, FEATURES_PURPOSE))
    except UnknownKeyError:
        return None
