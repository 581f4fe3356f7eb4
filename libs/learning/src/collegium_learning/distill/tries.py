"""What students said to the prompts of samples: what they know already, and which answers were preferred to theirs.
Pure.

One rule: a student that was right but not sure has something left to learn, so what was escalated is never known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from collegium_learning.distill.selecting import plain

Source = Literal["escalated", "outvoted", "person"]
PERSON = "person"


class Tried(NamedTuple):
    """Another model's answer to a sample's prompt (none: only whether it was the ``same`` is known).

    ``escalated``: it was asked on because the answer was not sure enough.
    """

    model: str
    rank: str
    answer: str | None
    same: bool | None
    escalated: bool


def known_already(tries: Sequence[Tried], model: str, answer: str) -> bool:
    """Tells whether a cheaper model gave the answer of ``model``, without having been unsure of it."""
    return any(
        one.model != model
        and one.rank in ("student", "ta")
        and not one.escalated
        and (one.same if one.same is not None else _equal(one, answer))
        for one in tries
    )


def rejected(tries: Sequence[Tried], model: str, answer: str) -> list[tuple[str, str, Source]]:
    """Returns the answers that another was preferred to: (model, answer, why), each text once."""
    found: dict[str, tuple[str, str, Source]] = {}
    person = model.partition(":")[0] == PERSON
    for one in tries:
        if one.answer is None or not one.answer.strip() or one.model == model or _equal(one, answer):
            continue
        why: Source = PERSON if person else "escalated" if one.escalated else "outvoted"
        found.setdefault(plain(one.answer), (one.model, one.answer, why))
    return [found[text] for text in sorted(found)]


def _equal(one: Tried, answer: str) -> bool:
    return one.answer is not None and plain(one.answer) == plain(answer)
