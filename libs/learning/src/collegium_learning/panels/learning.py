"""Learning a tally from panels whose answers are known to be right or wrong. Pure; numbers only, no clock, no files.

One rule: what is learned about a question is learned without it: members' shares and forms leave its own outcome out,
so that the weights are not fitted to what they will not have.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from collegium_learning.answers.forms import Forms, form_of
from collegium_learning.choices import fit_choices
from collegium_learning.panels.history import Outcome, Shares, shares_of
from collegium_learning.panels.stacking import (
    NONE_TERMS,
    PRIOR_WEIGHTS,
    TERMS,
    Learned,
    Stacked,
    none_terms,
    options_of,
    stacked_tally,
)
from collegium_learning.panels.stopping import is_settled
from collegium_learning.panels.votes import Tally, Vote

# How strongly weights are held to the weighted vote, in units of standardised terms.
RIDGE = 10.0
_RIDGE_NONE, _RIDGE_MIN = 0.01, 1e-3
# Random parts of each panel that are learned from besides the whole one, and what all of them weigh together.
PARTS = 2
PARTS_WEIGHT = 1.0
# Folds in which the panel is compared with its best member, and by how many standard errors it must be behind.
FOLDS = 5
BEHIND_ERRORS = 2.0
# With fewer questions than this a domain's panel is not compared.
ROWS_MIN = 20


class _Known(NamedTuple):
    """What is known of all outcomes together, from which one is left out at a time."""

    shares: Shares
    forms: dict[str, Forms]
    everywhere: Forms


def learn(outcomes: Sequence[Outcome], seed: int = 1, rehearsal: Sequence[Stacked] | None = None) -> Learned:
    """Returns what outcomes teach; without any, the weighted vote of members of whom nothing is known.

    ``rehearsal`` is what :func:`rehearsed` returns for the same outcomes, where it is at hand.
    """
    learned = learn_panel(outcomes, seed)
    if len(outcomes) < ROWS_MIN:
        return learned
    knowing = rehearsed(outcomes, seed) if rehearsal is None else rehearsal
    by_domain: defaultdict[str, list[int]] = defaultdict(list)
    for place, outcome in enumerate(outcomes):
        if outcome.votes:
            by_domain[outcome.domain].append(place)
    domains = dict(learned.domains)
    for domain, places in by_domain.items():
        if len(places) >= ROWS_MIN:
            best = _best([(outcomes[place], knowing[place]) for place in places], domains[domain])
            domains[domain] = msgspec.structs.replace(domains[domain], best=best)
    return Learned(learned.everywhere, domains)


def rehearsed(outcomes: Sequence[Outcome], seed: int = 1) -> list[Stacked]:
    """Returns for each outcome what the others teach (those of other folds) about its domain."""
    knowing: dict[int, Stacked] = {}
    for fold in folds_of(len(outcomes), seed):
        held = set(fold)
        learned = learn_panel([outcome for place, outcome in enumerate(outcomes) if place not in held], seed)
        knowing.update({place: learned.of(outcomes[place].domain) for place in fold})
    return [knowing[place] for place in range(len(outcomes))]


def learn_panel(outcomes: Sequence[Outcome], seed: int = 1) -> Learned:
    """Returns what outcomes teach about panels, none of which is left to its best member."""
    outcomes = [outcome for outcome in outcomes if outcome.votes]
    if not outcomes:
        return Learned()
    known = _known(outcomes)
    weights = _weights(outcomes, known, seed)
    members = sorted(known.shares.members)
    everyone = known.shares.everyone
    return Learned(
        Stacked(weights, {name: known.shares.of(name, "\0") for name in members}, everyone, known.everywhere),
        {
            domain: Stacked(weights, {name: known.shares.of(name, domain) for name in members}, everyone, forms)
            for domain, forms in known.forms.items()
        },
    )


def folds_of(rows: int, seed: int, folds: int = FOLDS) -> list[list[int]]:
    """Returns the rows of each fold, drawn at random."""
    places = list(range(rows))
    random.Random(seed).shuffle(places)  # noqa: S311 - folds, no secret
    return [sorted(places[fold::folds]) for fold in range(folds)]


def _known(outcomes: Sequence[Outcome]) -> _Known:
    given: defaultdict[str, Counter[str]] = defaultdict(Counter)
    right: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        for form, (seen, good) in _own_forms(outcome).items():
            given[outcome.domain][form] += seen
            right[outcome.domain][form] += good
        given[outcome.domain] += Counter()
    forms = {domain: Forms(dict(given[domain]), dict(right[domain])) for domain in sorted(given)}
    total, good = Counter[str](), Counter[str]()
    for domain in forms:
        total.update(given[domain])
        good.update(right[domain])
    return _Known(shares_of(outcomes), forms, Forms(dict(total), dict(good)))


def _own_forms(outcome: Outcome) -> dict[str, tuple[int, int]]:
    """Returns (given, right) of the distinct answers of one question, by form."""
    best: dict[str, bool] = {}
    for vote, good in zip(outcome.votes, outcome.right, strict=True):
        if vote.key:
            best[vote.key] = best.get(vote.key, False) or good
    own: dict[str, tuple[int, int]] = {}
    for key, good in best.items():
        seen, right = own.get(form_of(key), (0, 0))
        own[form_of(key)] = (seen + 1, right + good)
    return own


def _weights(outcomes: Sequence[Outcome], known: _Known, seed: int) -> dict[str, float]:
    drawn = random.Random(seed)  # noqa: S311 - parts of panels, no secret
    names = (*TERMS, *NONE_TERMS)
    rows: list[list[float]] = []
    starts: list[int] = []
    chosen: list[float] = []
    weights: list[float] = []
    for outcome in outcomes:
        own = _own_forms(outcome)
        for weight, places in _parts(len(outcome.votes), drawn):
            options, shares = _options(outcome, places, known, own)
            if len(options) > 1:
                starts.append(len(rows))
                weights.append(weight)
                rows.extend([terms.get(name, 0.0) for name in names] for terms in options)
                chosen.extend(shares)
    prior = np.array([PRIOR_WEIGHTS.get(name, 0.0) for name in names])
    if not rows:
        return dict(PRIOR_WEIGHTS)
    terms = np.array(rows)
    of_answers = terms[terms[:, names.index("none")] == 0.0]
    ridge = np.maximum(RIDGE * of_answers.std(axis=0) ** 2, _RIDGE_MIN)
    ridge[len(TERMS) :] = [_RIDGE_NONE, RIDGE / 10, RIDGE / 10]
    found = fit_choices(terms, np.array(starts), np.array(chosen), np.array(weights), prior, ridge)
    return {name: float(value) for name, value in zip(names, found, strict=True)}


def _parts(members: int, drawn: random.Random) -> list[tuple[float, list[int]]]:
    """Returns the whole panel and random parts of it, with what each weighs."""
    parts = [(1.0, list(range(members)))]
    if members > 1:
        for _ in range(PARTS):
            places = drawn.sample(range(members), drawn.randint(1, members - 1))
            parts.append((PARTS_WEIGHT / PARTS, sorted(places)))
    return parts


def _options(
    outcome: Outcome, places: Sequence[int], known: _Known, own: dict[str, tuple[int, int]]
) -> tuple[list[dict[str, float]], list[float]]:
    """Returns the terms of the options, there being no right one last, and which of them was right."""
    votes = {place: outcome.votes[place] for place in places}
    right = {outcome.votes[place].key for place in places if outcome.right[place]} - {""}
    rights = {
        place: known.shares.of(vote.member, outcome.domain, _own_share(outcome, vote)) for place, vote in votes.items()
    }
    forms = {
        vote.key: known.forms[outcome.domain].log_odds(form_of(vote.key), own.get(form_of(vote.key), (0, 0)))
        for vote in votes.values()
        if vote.key
    }
    options = options_of(votes, rights, forms)
    good = [1.0 / len(right) if key in right else 0.0 for key, _, _ in options]
    return [*(terms for _, _, terms in options), none_terms(votes)], [*good, 0.0 if right else 1.0]


def _own_share(outcome: Outcome, vote: Vote) -> tuple[int, int]:
    own = [good for one, good in zip(outcome.votes, outcome.right, strict=True) if one.member == vote.member]
    return len(own), sum(own)


def _best(seen: Sequence[tuple[Outcome, Stacked]], stacked: Stacked) -> str | None:
    """Returns the member that is plainly above the panel, or none."""
    ahead = np.array([float(_best_is_right(*one)) - float(is_right(*one)) for one in seen])
    error = float(ahead.std()) / len(ahead) ** 0.5
    if float(ahead.mean()) <= max(BEHIND_ERRORS * error, 1e-9):
        return None
    members = sorted({vote.member for outcome, _ in seen for vote in outcome.votes})
    return max(members, key=lambda name: stacked.right.get(name, stacked.unknown))


def asked_in_order(outcome: Outcome, stacked: Stacked) -> tuple[int, Tally | None]:
    """Returns how many members are asked until the panel is settled, and the tally of their votes."""
    places = sorted(
        range(len(outcome.votes)), key=lambda place: -stacked.right.get(outcome.votes[place].member, stacked.unknown)
    )
    names = [outcome.votes[place].member for place in places]
    votes: dict[int, Vote] = {}
    for asked, place in enumerate(places, 1):
        votes[place] = outcome.votes[place]
        if is_settled(votes, names[asked:], stacked):
            break
    return len(votes), stacked_tally(votes, stacked)


def is_right(outcome: Outcome, stacked: Stacked) -> bool:
    """Whether the tally of a panel is right."""
    tally = stacked_tally(dict(enumerate(outcome.votes)), stacked)
    return tally is not None and any(outcome.right[place] for place in tally.camps[0].numbers)


def _best_is_right(outcome: Outcome, stacked: Stacked) -> bool:
    places = range(len(outcome.votes))
    best = max(places, key=lambda place: stacked.right.get(outcome.votes[place].member, stacked.unknown))
    return outcome.right[best]
