"""What a rule read and what it found. Pure.

One rule: a finding says why in words that show nothing of the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import msgspec

from collegium_gates.units import Unit
from collegium_gates.views import View, views


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place of a unit (by its number) that a rule has something against; ``label`` says what is there."""

    unit: int
    start: int
    end: int
    label: str


class Findings(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that one rule found; nothing found and no ``reason``: the rule is content.

    ``is_whole`` findings are about the text as a whole, so that no place of it could be taken out.
    """

    reason: str = ""
    places: list[Found] = []
    is_whole: bool = False


NOTHING = Findings()


class Reading:
    """One unit with its readings, made once for all rules that look at it."""

    def __init__(self, number: int, unit: Unit) -> None:
        self.number = number
        self.unit = unit
        # Places by what was looked for and the number of the reading.
        self.known: dict[tuple[str, int], list[tuple[int, int]]] = {}

    @cached_property
    def plain(self) -> list[View]:
        """The text as it is."""
        return list(views(self.unit.text, normalise=False))

    @cached_property
    def all(self) -> list[View]:
        """All readings."""
        return list(views(self.unit.text))

    def views(self, *, normalise: bool) -> list[View]:
        """The readings that a rule looks at."""
        return self.all if normalise else self.plain


def readings(units: Iterable[Unit]) -> list[Reading]:
    """Returns units with their readings."""
    return [Reading(number, unit) for number, unit in enumerate(units)]


def found(reading: Reading, view: View, start: int, end: int, label: str) -> Found:
    """Returns a match in a reading as a place of its unit."""
    first, last = view.span(start, end)
    return Found(reading.number, first, last, label)


def told(places: list[Found], noun: str) -> Findings:
    """Returns findings whose reason counts the places by label."""
    if not places:
        return NOTHING
    labels = sorted({place.label for place in places})
    return Findings(f"{noun}: {', '.join(labels)[:200]}", places)
