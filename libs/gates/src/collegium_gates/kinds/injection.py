"""Attempts to take a model over by what it reads, by the patterns of nukon-pi-detect.

Long texts are read in overlapping pieces, which bounds the library's time. Read are the plainly written texts, so what
the library says of signs of other scripts (a Russian text is no attack) does not count. One rule: a text is refused by
its worst piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

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


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Finds texts that the library scores at the threshold or above."""
    scan = scanner()
    threshold = rule.threshold or DEFAULT_THRESHOLD
    places: list[Found] = []
    for reading in read:
        for view in reading.views(normalise=rule.normalise):
            for start, piece in _pieces(view.text):
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
