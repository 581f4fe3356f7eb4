"""How much quality to give away for a lower price: chosen on outcomes that were held out. Pure.

For each way of expecting qualities (models' means, domains' means, questions' rows too) and each tolerance, the
cheapest model within the tolerance of the best is taken, and held-out outcomes say what that loses and costs. Always
one model, and the cheapest that is good enough in each domain, are among these. One rule: where nothing is better than
the best single model by more than chance, the best single model answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from collegium_contracts.policies import Family, RoutingPolicy

from collegium_learning.routing.certifying import p_value
from collegium_learning.routing.choosing import cheapest_within
from collegium_learning.routing.features import Floats
from collegium_learning.routing.fitting import Fitted
from collegium_learning.routing.lessons import Doubles, Lessons, Places
from collegium_learning.routing.predicting import Predictor

TOLERANCES: Final = (
    0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.09, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.4,
    0.5, 1.0,
)  # fmt: skip
FAMILIES: Final[tuple[Family, ...]] = ("mean", "domain", "full")
# A loss is believed below its bound where half a standard error says so: a target to aim at, not a proof.
LEVEL: Final = 0.31
# Prices this much apart are the same.
_SAME = 0.01


class Trade(NamedTuple):
    """What was chosen: the best single model, how qualities are expected, and the tolerance; none: the single model.

    ``costs`` are what a call of each model costs everywhere.
    """

    baseline: str
    family: Family | None
    tolerance: float
    costs: tuple[float, ...]

    def choose(self, policy: RoutingPolicy, domains: Sequence[str], rows: Floats) -> Places:
        """Returns the place of the model that answers each question."""
        if self.family is None:
            return np.full(len(domains), policy.models.index(self.baseline))
        expected = Predictor(msgspec.structs.replace(policy, family=self.family)).expect_many(domains, rows)
        return cheapest_within(expected, _costs(policy, domains), self.tolerance)


def traded(fitted: Fitted, lessons: Lessons, loss_max: float) -> Trade:
    """Returns the cheapest way that is expected to lose at most ``loss_max`` against the best single model."""
    scores, policy = np.nan_to_num(lessons.scores), fitted.policy
    costs = _costs(policy, lessons.domains)
    everywhere = tuple(cell.cost_usd_picos / 1e12 for cell in policy.everywhere)
    means = scores.mean(axis=0)
    best = max(range(len(means)), key=lambda place: (means[place], -everywhere[place]))
    chosen = Trade(policy.models[best], None, 0.0, everywhere)
    rows = np.arange(lessons.size)
    standing = (float(costs[:, best].mean()), 0.0)
    for family in FAMILIES:
        expected = fitted.held_out[family]
        if np.isnan(expected).any():
            continue
        for tolerance in TOLERANCES:
            places = cheapest_within(expected, costs, tolerance)
            lost = scores[:, best] - scores[rows, places]
            if p_value(lost, loss_max) > LEVEL:
                continue
            cost = float(costs[rows, places].mean())
            # Of what costs the same, the better one, by more than chance.
            gained = -float(lost.mean()) - 0.5 * float(lost.std()) / np.sqrt(len(rows))
            if cost < standing[0] * (1 - _SAME) or (cost <= standing[0] * (1 + _SAME) and gained > standing[1]):
                chosen = Trade(policy.models[best], family, tolerance, everywhere)
                standing = (cost, gained)
    return chosen


def _costs(policy: RoutingPolicy, domains: Sequence[str]) -> Doubles:
    """Returns what a call of each model (columns) costs in questions' domains, in dollars."""
    cells = policy.domains
    return np.array([[cell.cost_usd_picos / 1e12 for cell in cells.get(name, policy.everywhere)] for name in domains])
