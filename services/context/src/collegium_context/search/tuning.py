"""How much the dense side counts: as much as it agrees with the words. Pure.

A weak embedder costs quality when it counts as much as the words do, and nobody labels a tenant's questions. But what
is weak at a tenant's texts also seldom finds what their words find. So the weight is the share of the words' first ten
that stands among the dense first ten too, over the tenant's questions, and at most a half. Measured on SciFact and
Cranfield with MiniLM whole, cut short and with noise: above both sides wherever both are of use, and never .002 of
nDCG@10 below the better one. One rule: without a tenant's own questions the stated default stands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

from collegium_context.search.fusion import Ranked

DEFAULT_WEIGHT = 0.4
WEIGHT_MAX = 0.5
DEPTH = 10
# The default counts as this many questions, and a tenant's older questions are forgotten as newer ones come.
_DEFAULT_QUESTIONS = 10
_REMEMBERED = 500
_TENANTS_MAX = 10_000
_GRID = tuple(step / 20 for step in range(21))
_FOLDS = 5


class Agreement(msgspec.Struct, frozen=True):
    """What was seen of a tenant's questions: how many, and the mean share that both sides had in common."""

    questions: float = _DEFAULT_QUESTIONS
    share: float = DEFAULT_WEIGHT

    @property
    def weight(self) -> float:
        """The dense side's weight."""
        return min(WEIGHT_MAX, self.share)

    def with_one(self, share: float) -> Agreement:
        """Adds a question."""
        questions = min(self.questions + 1, _REMEMBERED)
        return Agreement(questions, self.share + (share - self.share) / questions)


class Agreements:
    """The agreement of each tenant whose questions were seen here, those away longest forgotten first."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, Agreement] = OrderedDict()

    def of(self, tenant: str) -> Agreement:
        """Returns what is known of a tenant."""
        return self._tenants.get(tenant, Agreement())

    def see(self, tenant: str, dense: Sequence[Ranked], words: Sequence[Ranked]) -> None:
        """Takes in the lists of an unfiltered question, where both have as many as are compared."""
        if len(dense) < DEPTH or len(words) < DEPTH:
            return
        self._tenants[tenant] = self.of(tenant).with_one(agreement(dense, words))
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > _TENANTS_MAX:
            self._tenants.popitem(last=False)

    def forget(self, tenant: str) -> None:
        """Forgets a tenant."""
        self._tenants.pop(tenant, None)


def agreement(dense: Sequence[Ranked], words: Sequence[Ranked]) -> float:
    """Returns which share of the first ten both lists have in common."""
    return len({hit.id for hit in dense[:DEPTH]} & {hit.id for hit in words[:DEPTH]}) / DEPTH


def fitted_weight(questions: int, quality: Callable[[int, float], float], fallback: float) -> float:
    """Returns the weight for labelled questions: the grid's best, where it beats the fallback on questions held out.

    ``quality(question, weight)`` is the measure of one labelled question. The grid's best of four fifths is tried on
    the fifth left out, in turn; unless the five together gain more than one standard error, the fallback stays.
    """
    if questions < 2 * _FOLDS:
        return fallback
    table = [[quality(one, weight) for weight in _GRID] for one in range(questions)]
    gains: list[float] = []
    for fold in range(_FOLDS):
        best = _best([row for one, row in enumerate(table) if one % _FOLDS != fold])
        gains += [table[one][best] - quality(one, fallback) for one in range(fold, questions, _FOLDS)]
    mean = sum(gains) / len(gains)
    error = (sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains)) ** 0.5
    return _GRID[_best(table)] if mean > error else fallback


def _best(table: Sequence[Sequence[float]]) -> int:
    sums = [sum(row[column] for row in table) for column in range(len(_GRID))]
    return max(range(len(_GRID)), key=sums.__getitem__)
