"""Plans of several attempts: how many they make at most, how many at first, and whose. Pure.

A cascade climbs the ranks: it asks the weakest one twice, because two answers that agree say more than one can, and
every higher one once. A panel asks up to so many members as it was asked for. Who answers within a rank is the router's
business, and when enough were asked is consensus'. One rule: what a plan may cost at most follows from here alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from collegium_contracts.parts import AttemptRef, Rank, TaskRef

RANKS_UP: Final[tuple[Rank, ...]] = ("student", "ta", "teacher")
# Attempts that are made at once: fewer than two never agree, and a third is often saved.
AT_FIRST: Final = 2
# Judges of a panel that stays undecided, each asked in both orders; and what a judge is shown at most, and may write.
JUDGES: Final = 2
JUDGE_ATTEMPTS: Final = 2 * JUDGES
JUDGE_QUESTION_CHARS: Final = 8_000
JUDGE_ANSWER_CHARS: Final = 6_000
JUDGE_TOKENS: Final = 512
# The question, four answers and the rules, at six bytes for each character: none takes more as JSON in UTF-8.
JUDGE_PROMPT_BYTES: Final = 6 * (JUDGE_QUESTION_CHARS + 4 * JUDGE_ANSWER_CHARS) + 4_000
# Plans whose attempts end by themselves and that consensus settles.
SEVERAL: Final = frozenset(("panel", "cascade"))


def cascade_ranks(present: Iterable[Rank]) -> tuple[Rank, ...]:
    """Returns the rank of each attempt that a cascade may make, from the ranks that have a model; empty for none."""
    found = set(present)
    climbed: tuple[Rank, ...] = tuple(rank for rank in RANKS_UP if rank in found)
    return climbed[:1] * AT_FIRST + climbed[1:]


def at_first(of: int, tests: int = 0) -> int:
    """Returns how many of a plan's attempts are made before any has ended: with tests one may be enough."""
    return min(1 if tests else AT_FIRST, of)


def settles(task: TaskRef, attempt: AttemptRef) -> bool:
    """Whether the end of an attempt is the end of its task: the only one of a plan, unless consensus waits for it."""
    return attempt.of == 1 and task.probe is None and task.people is None and not task.tests
