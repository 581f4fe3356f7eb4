"""Answers: what one says, in a form that equal answers share, and what it looks like. Pure.

Rooms: ``saying`` (a model's answer, and whether two are the same), ``extraction`` (what a text says, by the type that
was asked for), ``normalise`` (when two texts are one), ``clusters`` (free text that means the same, by vectors that are
handed in), ``forms`` (what right answers look like).
"""

from collegium_learning.answers.extraction import AnswerType, key_of, says_nothing
from collegium_learning.answers.normalise import normalise
from collegium_learning.answers.saying import said, says_same

__all__ = ["AnswerType", "key_of", "normalise", "said", "says_nothing", "says_same"]
