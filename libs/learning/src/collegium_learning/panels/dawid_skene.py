"""Members' reliability from their votes alone, without knowing what was right: Dawid and Skene's model by EM. Pure.

The one-coin form: a member is right with a probability of its own and otherwise says any other answer that was given,
each as likely; every question has answers of its own. The full confusion matrix needs answers that are the same in all
questions (labels) and many votes for each pair of them. One rule: votes start as a majority, so that members who are
mostly wrong together are believed together; what is known of them goes in as ``prior``.

Source: Dawid and Skene 1979, Applied Statistics 28(1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from collegium_learning.panels.votes import P_MAX, P_MIN

ROUNDS_MAX = 100
_CLOSE = 1e-6
# A member starts as one that was right in three of four answers.
PRIOR_RIGHT, PRIOR_ROWS = 0.75, 4.0


class Estimated(NamedTuple):
    """Members' shares of right answers, and the probability of each answer of each question."""

    right: dict[str, float]
    answers: list[dict[str, float]]


def estimate(
    questions: Sequence[Sequence[tuple[str, str]]],
    prior: Mapping[str, float] | None = None,
    answers: int | None = None,
    counts: Sequence[int] | None = None,
) -> Estimated:
    """Returns what the votes of questions, (member, key) each, say about members and answers.

    ``prior`` are known shares of members; ``answers`` is among how many a wrong member chooses, by default one more
    than were given. A vote for nothing is a wrong one. ``counts`` is how often each question came, by default once.
    """
    known = dict(prior or {})
    members = sorted({member for votes in questions for member, _ in votes})
    right = {member: known.get(member, PRIOR_RIGHT) for member in members}
    believed = [_majority(votes) for votes in questions]
    for _ in range(ROUNDS_MAX):
        before = right
        right = _shares(questions, believed, known, members, counts or [1] * len(questions))
        believed = [_posterior(votes, right, answers) for votes in questions]
        if max((abs(right[member] - before[member]) for member in members), default=0.0) < _CLOSE:
            break
    return Estimated(right, believed)


def _majority(votes: Sequence[tuple[str, str]]) -> dict[str, float]:
    said = Counter(key for _, key in votes if key)
    return {key: said[key] / said.total() for key in sorted(said)}


def _shares(
    questions: Sequence[Sequence[tuple[str, str]]],
    believed: Sequence[Mapping[str, float]],
    known: Mapping[str, float],
    members: Sequence[str],
    counts: Sequence[int],
) -> dict[str, float]:
    right = {member: PRIOR_ROWS * known.get(member, PRIOR_RIGHT) for member in members}
    given = dict.fromkeys(members, PRIOR_ROWS)
    for votes, answers, count in zip(questions, believed, counts, strict=True):
        for member, key in votes:
            right[member] += count * answers.get(key, 0.0)
            given[member] += count
    return {member: min(max(right[member] / given[member], P_MIN), P_MAX) for member in members}


def _posterior(votes: Sequence[tuple[str, str]], right: Mapping[str, float], answers: int | None) -> dict[str, float]:
    keys = sorted({key for _, key in votes if key})
    if not keys:
        return {}
    others = max((answers or len(keys) + 1) - 1, 1)
    # The last is that none of them is right, in which case every vote is a wrong one.
    scores = np.zeros(len(keys) + 1)
    for member, key in votes:
        if key:
            wrong = np.log((1.0 - right[member]) / others)
            scores += wrong
            scores[keys.index(key)] += np.log(right[member]) - wrong
    powers = np.exp(scores - scores.max())
    return dict(zip(keys, (powers[:-1] / powers.sum()).tolist(), strict=True))
