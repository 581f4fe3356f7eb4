"""All readings of a text that a rule looks at: as it is, written plainly, and what is hidden in it. Pure.

One rule: every match in a reading leads back to a place of the original text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from collegium_gates.decoding import MAX_DEPTH, pieces, unescaped
from collegium_gates.folding import Folded, fold


class View(NamedTuple):
    """One reading. ``folded`` leads back to the original; where it is none, what was read is all that stands from
    ``start`` to ``end`` of it."""

    text: str
    folded: Folded | None
    start: int = 0
    end: int = 0

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the original's place of a match, which holds a character at least."""
        return (self.start, self.end) if self.folded is None else self.folded.span(start, end)


_AS_IT_IS: Final = Folded(())


def views(text: str, *, normalise: bool = True) -> Iterator[View]:
    """Yields the readings of a text, the original first; without ``normalise`` that alone."""
    yield View(text, _AS_IT_IS)
    if not normalise:
        return
    folded = fold(text)
    yield from (View(reading, folded) for reading in folded.readings if reading != text)
    plain = folded.readings[0]
    meant = unescaped(plain)
    if meant is not None:
        inner = fold(meant.readings[0]).within(meant).within(folded)
        yield from (View(reading, inner) for reading in inner.readings)
        yield from _hidden(inner)
    yield from _hidden(folded)


def _hidden(folded: Folded) -> Iterator[View]:
    seen: set[tuple[str, int]] = set()
    # Other readings of what is encoded would be other texts: the likeliest alone is looked through.
    waiting: list[tuple[str, tuple[int, int] | None, int]] = [(folded.readings[0], None, 0)]
    while waiting:
        text, span, depth = waiting.pop()
        for piece in pieces(text):
            where = span or folded.span(piece.start, piece.end)
            if (piece.text, where[0]) in seen or piece.text == text:
                continue
            seen.add((piece.text, where[0]))
            inner = fold(piece.text)
            meant = unescaped(inner.readings[0])
            said = (piece.text, *inner.readings, *(fold(meant.readings[0]).readings if meant else ()))
            for reading in dict.fromkeys(said):
                yield View(reading, None, *where)
            if depth + 1 < MAX_DEPTH:
                waiting.append((inner.readings[0], where, depth + 1))
