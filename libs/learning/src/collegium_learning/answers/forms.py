"""What an answer looks like, and how often answers of that look were right. Pure.

Two members that agree on a sentence where only numbers were ever right are probably wrong together; that is learned
from answers whose outcome is known and needs no knowledge of the task. One rule: a form says nothing about what an
answer means, and there are few of them, so that each is seen often.
"""

from __future__ import annotations

import math
import re

import msgspec

# How many answers a domain's own share of right ones weighs as much as what was seen of one form.
PRIOR_ROWS = 4.0
_P_MIN = 0.005
_NUMBER = re.compile(r"(-?)\d+(\.\d+|/\d+)?")
_WORD = re.compile(r"[^\W\d_]{2,}")
WORDS_MANY = 4
# A form is that of the beginning: the rest of a long text does not change it.
LOOKED_AT_CHARS = 400


class Forms(msgspec.Struct, frozen=True):
    """How many distinct answers of each form were given and how many of them were right, in one domain."""

    given: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    right: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    def log_odds(self, form: str, without: tuple[int, int] = (0, 0)) -> float:
        """Returns how much more likely than usual an answer of this form is right, in nats.

        ``without`` are (given, right) of this form to be left out: those of the question that is looked at.
        """
        given, right = sum(self.given.values()), sum(self.right.values())
        usual = (right + 1.0) / (given + 2.0)
        seen, good = self.given.get(form, 0) - without[0], self.right.get(form, 0) - without[1]
        share = (good + PRIOR_ROWS * usual) / (seen + PRIOR_ROWS)
        return _logit(share) - _logit(usual)


def form_of(key: str) -> str:
    """Returns the form of a key: one of a dozen names."""
    text = key[:LOOKED_AT_CHARS]
    if number := _NUMBER.fullmatch(text):
        if number[2]:
            return "fraction"
        return "negative" if number[1] else "integer"
    if not re.search(r"[^\W_]", text):
        return "symbols"
    if text[0] in "[{(":
        return "list" if text[0] == "[" else "structure"
    if text[0] == '"':
        return "string"
    words = len(_WORD.findall(text))
    if words >= WORDS_MANY:
        return "words"
    if len(text) == 1:
        return "letter"
    return "expression" if re.search(r"\d", text) else "word"


def _logit(share: float) -> float:
    clipped = min(max(share, _P_MIN), 1.0 - _P_MIN)
    return math.log(clipped / (1.0 - clipped))
