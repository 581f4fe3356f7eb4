"""Who answers: the cheapest candidate that is expected to be good enough, and why. Pure; the draw comes in.

    not affordable, or too slow for the deadline    left out, while somebody is left
    unlike anything known                           the highest rank
    too little known of the highest rank            the highest rank
    otherwise                                       the cheapest that is good enough, or the best

Good enough is who surely reaches the wanted quality; where none is wanted, who surely loses no more than the policy's
tolerance against the best, or whose use at this gain is proven. One rule: what is not known well enough is no reason to
leave the highest rank, except for the few draws that are made to learn, whose chances are logged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from collegium_contracts.parts import Rank
from collegium_contracts.policies import RoutingPolicy

from collegium_learning.routing.lessons import Doubles, Places
from collegium_learning.routing.predicting import Expected, Predictor

# Who is surely worse by more than so many tolerances is not drawn to learn from; shadows still look at it.
HOPELESS_TOLERANCES: Final = 2.0
HOPELESS_SD: Final = 1.64
_TINY: Final = 1e-12
RANK_ORDER: Final[dict[Rank, int]] = {"teacher": 0, "ta": 1, "student": 2}


class Candidate(NamedTuple):
    """A model that may answer, and what its call is expected to cost by its price (dollars)."""

    name: str
    rank: Rank
    cost_usd: float


class Wants(NamedTuple):
    """What a request asks for: a quality, the dollars it may cost, the seconds that are left; none: nothing.

    ``pressure`` is how much more may be lost for a lower price than the policy says, as a multiple of it, because more
    was spent than was to be (see ``spending``).
    """

    quality: float | None = None
    cost_usd_max: float | None = None
    seconds_max: float | None = None
    pressure: float = 0.0


class Draw(NamedTuple):
    """A number from 0 to 1 that was drawn for the task, and the share of tasks that is given away to learn."""

    number: float
    share: float


class Choice(NamedTuple):
    """The candidates in the order in which they are to be asked, and why the first one is first."""

    order: tuple[str, ...]
    reasons: tuple[str, ...]
    propensity: float
    explored: bool
    quality: float | None
    gain: float | None


class _View(NamedTuple):
    """A candidate as it is compared: ``worth`` is its quality less its rank's penalty."""

    of: Candidate
    known: bool
    quality: float
    sd: float
    worth: float
    seconds: float
    beside_sd: float = 0.0


def decide(
    predictor: Predictor,
    expected: Expected,
    candidates: Sequence[Candidate],
    wants: Wants,
    draw: Draw,
    penalties: Mapping[Rank, float] | None = None,
) -> Choice:
    """Chooses among candidates (at least one)."""
    views = [_view(predictor, expected, candidate, penalties or {}) for candidate in candidates]
    allowed, why = _within(views, wants)
    policy = _pressed(predictor.policy, wants)
    preferred, reasons = _preferred(policy, expected, allowed, wants)
    pressed = policy is not predictor.policy
    if pressed and _preferred(predictor.policy, expected, allowed, wants)[0].of != preferred.of:
        reasons = ("spending", *reasons)
    if penalties:
        without = [view._replace(worth=view.quality) for view in allowed]
        if _preferred(policy, expected, without, wants)[0].of != preferred.of:
            reasons = ("share", *reasons)
    chosen, chance, told = _drawn(preferred, allowed, draw, policy)
    if chosen.of != preferred.of:
        reasons = (*told, *reasons)
    others = sorted((view for view in allowed if view.of != chosen.of), key=_fallback)
    late = sorted((view for view in views if view not in allowed), key=_fallback)
    known = [view.quality for view in allowed if view.known]
    gain = max(known) - chosen.quality if known and chosen.known else None
    order = tuple(view.of.name for view in (chosen, *others, *late))
    return Choice(order, (*reasons, *why), chance, bool(told), chosen.quality if chosen.known else None, gain)


def cheapest_within(quality: Doubles, costs: Doubles, tolerance: float) -> Places:
    """Returns the column of each row that costs least of those within a tolerance of its best; the best of equals."""
    good = quality >= quality.max(axis=1, keepdims=True) - tolerance
    price = np.where(good, costs, np.inf)
    cheapest = price <= price.min(axis=1, keepdims=True) * (1 + 1e-9)
    return np.where(cheapest & good, quality, -np.inf).argmax(axis=1)


def _view(predictor: Predictor, expected: Expected, candidate: Candidate, penalties: Mapping[Rank, float]) -> _View:
    policy = predictor.policy
    place = predictor.places.get(candidate.name, -1)
    if place < 0 or policy.everywhere[place].rows < policy.rows_min:
        return _View(candidate, False, 0.0, 1.0, 0.0, 0.0)
    beside = 0.0 if candidate.name == policy.reference else float(expected.beside_sd[place])
    quality = min(1.0, max(0.0, float(expected.quality[place])))
    worth = quality - penalties.get(candidate.rank, 0.0)
    return _View(candidate, True, quality, float(expected.sd[place]), worth, float(expected.seconds[place]), beside)


def _within(views: Sequence[_View], wants: Wants) -> tuple[list[_View], tuple[str, ...]]:
    """Leaves out what costs or takes too long, as long as somebody is left."""
    allowed, why = list(views), list[str]()
    if wants.cost_usd_max is not None:
        affordable = [view for view in allowed if view.of.cost_usd <= wants.cost_usd_max]
        if affordable and len(affordable) < len(allowed):
            allowed = affordable
            why.append("budget")
    if wants.seconds_max is not None:
        in_time = [view for view in allowed if view.seconds <= wants.seconds_max]
        if in_time and len(in_time) < len(allowed):
            allowed = in_time
            why.append("deadline")
    return allowed, tuple(why)


def _pressed(policy: RoutingPolicy, wants: Wants) -> RoutingPolicy:
    """Returns the policy as spending moves it; a wanted quality is no matter of price."""
    if wants.pressure <= 0.0 or wants.quality is not None:
        return policy
    times = 1.0 + wants.pressure
    return msgspec.structs.replace(policy, tolerance=policy.tolerance * times, caution=policy.caution / times)


def _preferred(
    policy: RoutingPolicy, expected: Expected, allowed: Sequence[_View], wants: Wants
) -> tuple[_View, tuple[str, ...]]:
    highest = min(allowed, key=_merit)
    if len(allowed) == 1:
        return highest, ("only_candidate",)
    if expected.nearest is not None and expected.nearest < policy.novel_below:
        return highest, ("novel",)
    known = [view for view in allowed if view.known]
    if wants.quality is not None:
        reaching = [view for view in known if view.worth - policy.caution * view.sd >= wants.quality]
        if reaching:
            return min(reaching, key=_price), ("good_enough",)
    if not highest.known:
        return highest, ("cold_start",)
    # Of many that are little known one always looks better than it is: who is best has to be so surely.
    best = max(
        known,
        key=lambda view: (_surely(view, highest, policy), -view.of.cost_usd, view.of.name),
    )
    if wants.quality is not None:
        return best, ("quality_floor",)
    good = {view.of.name: why for view in known if (why := _is_good(view, best, policy))}
    # What a call of the best costs is worth as much as may be lost: who saves little is not worth a loss.
    price = policy.tolerance / max(best.of.cost_usd, _TINY)
    chosen = max(
        (view for view in known if view.of.name in good),
        key=lambda view: (view.worth - price * view.of.cost_usd, -view.of.cost_usd, view.of.name),
    )
    return chosen, (good[chosen.of.name],)


def _is_good(view: _View, best: _View, policy: RoutingPolicy) -> str:
    """Says why a candidate is good enough beside the best; empty where it is not."""
    gain = best.worth - view.worth
    if view.of == best.of:
        return "expected_best"
    if gain + policy.caution * _unsure(view, best, policy) <= policy.tolerance:
        return "good_enough"
    for proof in policy.proofs:
        pair = (proof.weak, proof.strong) == (view.of.name, best.of.name)
        if pair and proof.loss_max <= policy.tolerance and gain <= proof.gain_max:
            return "certified"
    return ""


def _surely(view: _View, highest: _View, policy: RoutingPolicy) -> float:
    """Returns what a candidate is worth at least, as far as its difference to the highest rank is unsure."""
    return view.worth - (policy.caution * _unsure(view, highest, policy) if view.of != highest.of else 0.0)


def _unsure(view: _View, best: _View, policy: RoutingPolicy) -> float:
    """Returns how unsure the difference of two is: less where questions that both answered tell it."""
    apart = math.hypot(view.sd, best.sd)
    sides = [one for one in (view, best) if one.of.name != policy.reference]
    if not policy.reference or any(one.beside_sd <= 0.0 for one in sides):
        return apart
    return min(apart, math.hypot(*(one.beside_sd for one in sides)))


def _drawn(
    preferred: _View, allowed: Sequence[_View], draw: Draw, policy: RoutingPolicy
) -> tuple[_View, float, tuple[str, ...]]:
    """Returns who was drawn, with which chance, and as what if that was to learn."""
    if len(allowed) == 1 or draw.share <= 0.0:
        return preferred, 1.0, ()
    open_to = sorted((view for view in allowed if not _is_hopeless(view, preferred, policy)), key=_merit)
    each = draw.share / len(open_to)
    trials = [
        (view, policy.trials[view.of.name])
        for view in open_to
        if view.of.name in policy.trials and view.of.cost_usd < preferred.of.cost_usd
    ]
    chosen, told = preferred, tuple[str, ...]()
    if draw.number < draw.share:
        chosen, told = open_to[min(len(open_to) - 1, int(draw.number / each))], ("explored",)
    else:
        reached = draw.share
        for view, share in trials:
            if reached <= draw.number < reached + share:
                chosen, told = view, ("trial",)
            reached += share
    chance = each if chosen in open_to else 0.0
    chance += sum(share for view, share in trials if view.of == chosen.of)
    if chosen.of == preferred.of:
        chance += max(0.0, 1.0 - draw.share - sum(share for _, share in trials))
    return chosen, chance, told


def _is_hopeless(view: _View, preferred: _View, policy: RoutingPolicy) -> bool:
    """Whether nothing is to be learned of a candidate by asking it: it is surely much worse, or dearer and lower."""
    if view.of == preferred.of:
        return False
    if not view.known:
        is_lower = RANK_ORDER[view.of.rank] > RANK_ORDER[preferred.of.rank]
        return is_lower and view.of.cost_usd >= preferred.of.cost_usd
    if not preferred.known:
        return False
    unsure = _unsure(view, preferred, policy)
    return preferred.worth - view.worth - HOPELESS_SD * unsure > HOPELESS_TOLERANCES * policy.tolerance


def _price(view: _View) -> tuple[float, float, str]:
    return view.of.cost_usd, -view.worth, view.of.name


def _merit(view: _View) -> tuple[int, float, str]:
    return RANK_ORDER[view.of.rank], view.of.cost_usd, view.of.name


def _fallback(view: _View) -> tuple[bool, float, int, float, str]:
    return not view.known, -view.worth, *_merit(view)
