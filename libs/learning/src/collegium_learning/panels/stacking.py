"""A tally whose weights were learned from panels of before. Pure, and serialisable: what was learned is data.

Each answer is an option with terms (who gives it, how many agree, what it looks like), and so is the possibility that
none of them is right; a softmax over the options gives their probabilities. Members' names are no terms: what counts
is how often they were right. One rule: without anything learned this is the weighted vote.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from collegium_learning.answers.forms import Forms, form_of
from collegium_learning.panels.votes import P_UNKNOWN, Camp, Tally, Vote, weight_of

# Terms of an answer, and of there being no right one among them.
TERMS = ("weight_two", "weight_ten", "share", "best", "form")
NONE_TERMS = ("none", "none_silent", "none_asked")
# The weighted vote, at half its strength, because members that err err alike; as of ten possible answers.
PRIOR_WEIGHTS = {"weight_ten": 0.5, "none": 1.0}


class Stacked(msgspec.Struct, frozen=True):
    """What was learned about one domain: the weights of terms, members' shares of right answers, and forms.

    ``best`` names the member that decides alone, where the panel was not estimated to be above it.
    """

    weights: dict[str, float] = msgspec.field(default_factory=lambda: dict(PRIOR_WEIGHTS))
    right: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    unknown: float = P_UNKNOWN
    forms: Forms = msgspec.field(default_factory=Forms)
    best: str | None = None


class Learned(msgspec.Struct, frozen=True):
    """What was learned, by domain and for all others."""

    everywhere: Stacked = msgspec.field(default_factory=Stacked)
    domains: dict[str, Stacked] = msgspec.field(default_factory=dict[str, Stacked])

    def of(self, domain: str) -> Stacked:
        """Returns what is known of a domain."""
        return self.domains.get(domain, self.everywhere)


Option = tuple[str, tuple[int, ...], dict[str, float]]


def stacked_tally(votes: Mapping[int, Vote], stacked: Stacked) -> Tally | None:
    """Counts votes by what was learned; none where nobody voted.

    The most probable answer wins; between equals the larger camp, then that of the lowest attempt. A camp's weight is
    its score against there being no right answer, in nats.
    """
    if not votes:
        return None
    rights = {number: stacked.right.get(vote.member, stacked.unknown) for number, vote in votes.items()}
    options = options_of(votes, rights, {key: stacked.forms.log_odds(form_of(key)) for key in _keys(votes)})
    if not options:
        return Tally(min(votes), 0, 0, len(votes), 0.0, (Camp("", tuple(sorted(votes)), 0.0, 0.0),))
    none = _score(none_terms(votes), stacked.weights)
    scores = [_score(terms, stacked.weights) - none for _, _, terms in options]
    top = max(0.0, *scores)
    total = math.fsum([math.exp(-top), *(math.exp(score - top) for score in scores)])
    camps = [
        Camp(key, numbers, score, math.exp(score - top) / total)
        for (key, numbers, _), score in zip(options, scores, strict=True)
    ]
    camps.sort(key=lambda camp: (-round(camp.weight, 9), -len(camp.numbers), camp.numbers[0]))
    first = _alone(camps, votes, stacked.best) or camps[0]
    silent = tuple(sorted(number for number, vote in votes.items() if not vote.key))
    rest = [camp for camp in camps if camp is not first]
    return Tally(
        winner=first.numbers[0],
        agreeing=len(first.numbers),
        votes=len(votes) - len(silent),
        asked=len(votes),
        probability=first.probability,
        camps=(first, *rest, *([Camp("", silent, 0.0, 0.0)] if silent else [])),
    )


def options_of(votes: Mapping[int, Vote], rights: Mapping[int, float], forms: Mapping[str, float]) -> list[Option]:
    """Returns the answers: key, attempts, terms. ``rights`` are the voters' shares, ``forms`` the keys' log-odds."""
    camps: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(votes):
        if votes[number].key:
            camps[votes[number].key].append(number)
    best = max(rights.values(), default=0.0)
    return [
        (key, tuple(numbers), _terms([rights[number] for number in numbers], len(votes), best, forms[key]))
        for key, numbers in camps.items()
    ]


def none_terms(votes: Mapping[int, Vote]) -> dict[str, float]:
    """Returns the terms of there being no right answer."""
    silent = sum(1 for vote in votes.values() if not vote.key)
    return {"none": 1.0, "none_silent": silent / len(votes), "none_asked": math.log(len(votes))}


def _terms(rights: Sequence[float], asked: int, best: float, form: float) -> dict[str, float]:
    return {
        "weight_two": math.fsum(weight_of(right, 2.0) for right in rights),
        "weight_ten": math.fsum(weight_of(right, 10.0) for right in rights),
        "share": len(rights) / asked,
        "best": float(max(rights) >= best),
        "form": form,
    }


def _keys(votes: Mapping[int, Vote]) -> set[str]:
    return {vote.key for vote in votes.values() if vote.key}


def _score(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return math.fsum(weights.get(name, 0.0) * value for name, value in terms.items())


def _alone(camps: Sequence[Camp], votes: Mapping[int, Vote], best: str | None) -> Camp | None:
    if best is None:
        return None
    return next((camp for camp in camps if any(votes[number].member == best for number in camp.numbers)), None)
