"""Topics that may not be spoken of, or the only ones that may: lists of phrases. Pure.

A phrase matches as whole words, whatever the case, the spaces between its words, and the signs that only look like its
letters. With ``allow``, a user's text that names none of the allowed phrases is refused; ``deny`` comes first. One
rule: phrases and texts are compared by the same skeleton, so a look-alike in either is no way around.
"""

from __future__ import annotations

import re
from functools import lru_cache

from collegium_contracts.gates import GateRule

from collegium_gates.finding import NOTHING, Findings, Found, Reading, found, told
from collegium_gates.folding import fold, skeleton


@lru_cache(maxsize=256)
def _expression(phrases: tuple[str, ...], *, as_skeleton: bool) -> re.Pattern[str]:
    words = [(_skeleton(one) if as_skeleton else one.lower()).split() for one in phrases]
    # Longer phrases first, so that one is named by its longest match.
    alternatives = sorted((r"[\s\W_]{1,3}".join(map(re.escape, one)) for one in words), key=len, reverse=True)
    # An underscore is no part of a word: it is how emphasis is written.
    return re.compile(r"(?<![^\W_])(?:" + "|".join(alternatives) + r")(?![^\W_])")


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds denied phrases, or says that no allowed one is there."""
    places = [place for reading in read for place in _matches(rule, rule.deny, reading)]
    if places:
        return told(places, "denied topic")
    if rule.allow:
        about = [reading for reading in read if reading.unit.role in ("", "user") and reading.unit.segments]
        if about and not any(_matches(rule, rule.allow, reading) for reading in about):
            return Findings("none of the allowed topics is named", is_whole=True)
    return NOTHING


def _matches(rule: GateRule, phrases: list[str], reading: Reading) -> list[Found]:
    if not phrases:
        return []
    matches: list[Found] = []
    for view in reading.views(normalise=rule.normalise):
        # As written too: in a skeleton a mark of exclamation is a letter.
        texts = [(view.text.lower(), False)]
        if rule.normalise:
            texts.append((skeleton(view.text), True))
        for text, as_skeleton in texts:
            expression = _expression(tuple(phrases), as_skeleton=as_skeleton)
            matches += [found(reading, view, *match.span(), "phrase") for match in expression.finditer(text)]
    return matches


def _skeleton(phrase: str) -> str:
    return skeleton(fold(phrase).readings[0])
