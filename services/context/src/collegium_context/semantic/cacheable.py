"""Which questions are answered from what was answered before: none about a person, and none about the present. Pure.

English words are looked for in every message of the user's. One rule: a question of which this cannot be told is
asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from collegium_context.semantic.turns import Turn

Reason = Literal["personal", "time"]

_PERSONAL: Final = re.compile(
    r"\b(?:my|mine|myself|our|ours|ourselves|me|i'm|i’m|im|i've|i’ve|we're|we’re|we've|remember|who am i|am i)\b", re.I
)
_TIME: Final = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|nowadays|currently|current|latest|newest|recent|recently|just (?:now|"
    r"happened)|so far|as of|at the moment|right now|up to date|live score|breaking|upcoming|"
    r"(?:this|last|next) (?:second|minute|hour|morning|afternoon|evening|night|day|week|weekend|month|quarter|year|"
    r"season|spring|summer|autumn|fall|winter|monday|tuesday|wednesday|thursday|friday|saturday|sunday)|"
    r"weather|forecast|news|stock price|share price|exchange rate|what time is it|what day is it|what(?:'s| is) the "
    r"(?:time|date)|ago|ti(?:ll|l) now|these days|any ?more|still)\b",
    re.I,
)


def not_cached(turns: Sequence[Turn]) -> Reason | None:
    """Returns why a question is always asked; none where it may be answered from the cache."""
    for turn in turns:
        if turn.role != "user":
            continue
        if _PERSONAL.search(turn.text):
            return "personal"
        if _TIME.search(turn.text):
            return "time"
    return None
