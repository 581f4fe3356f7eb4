"""Attempts to take a model over by what it reads, by the patterns of nukon-pi-detect.

Long texts are read in overlapping pieces, which bounds the library's time. Read are the plainly written texts, so what
the library says of signs of other scripts (a Russian text is no attack) does not count. One rule: a text is refused by
its worst piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import re2  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts.gates import GateRule

from collegium_gates.errors import RuleUnusableError
from collegium_gates.finding import Findings, Found, Reading, found, told

DEFAULT_THRESHOLD: Final = 0.85
_PIECE: Final = 4_000
_OVERLAP: Final = 400


def scanner() -> Any:
    """Returns the library's ``scan``; raises RuleUnusableError where it is missing."""
    try:
        from nukon_pi_detect import scan  # noqa: PLC0415 - loaded where a rule needs it
    except Exception as error:
        raise RuleUnusableError(f"nukon-pi-detect cannot be loaded: {type(error).__name__}") from error
    return scan


@cache
def _quick() -> list[Any]:
    """Returns the library's patterns for RE2, which finds that none of them matches in a tenth of the time."""
    from nukon_pi_detect.patterns import ALL_PATTERNS  # noqa: PLC0415 - loaded where a rule needs it

    options = re2.Options()
    options.log_errors = False
    flags = ((re.IGNORECASE, "i"), (re.DOTALL, "s"), (re.MULTILINE, "m"))
    found: list[Any] = []
    for one in ALL_PATTERNS:
        letters = "".join(letter for flag, letter in flags if one.pattern.flags & flag)
        try:
            found.append(re2.compile(f"(?{letters}){one.pattern.pattern}", options))
        except re2.error:
            found.append(one.pattern)
    return found


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds texts that the library scores at the threshold or above."""
    scan, quick = scanner(), _quick()
    threshold = rule.threshold or DEFAULT_THRESHOLD
    places: list[Found] = []
    for reading in read:
        for view in reading.views(normalise=rule.normalise):
            for start, piece in _pieces(view.text):
                if not any(pattern.search(piece) for pattern in quick):
                    continue
                hits = [hit for hit in scan(piece).hits if hit.category != "unicode"]
                harmless = 1.0
                for confidence in {hit.id: hit.confidence for hit in hits}.values():
                    harmless *= 1 - confidence
                if 1 - harmless >= threshold:
                    worst = max(hits, key=lambda hit: hit.confidence)
                    places.append(found(reading, view, start + worst.start, start + worst.end, worst.id))
    return told(places, "prompt injection")


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    for start in range(0, max(1, len(text) - _OVERLAP), _PIECE - _OVERLAP):
        yield start, text[start : start + _PIECE]
