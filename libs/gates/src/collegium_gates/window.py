"""Answers that are still being written: how much of the text may go on, and how much is held back. Pure.

A place that a rule could have something against is at most REACH_CHARACTERS long as a reader sees it (characters that
are not seen do not count), or up to ENCODED_CHARACTERS where it is written in another way. A character goes on when so
many follow it, so whatever begins at it has been read as a whole. Rules of the kinds in ``evaluating.WHOLE`` hold back
everything. One rule: what went on is never read as more harmless than it was: the text before stays in the window.
"""

from __future__ import annotations

import re
from typing import Final

from collegium_gates.deciding import MAX_TOKEN_CHARACTERS
from collegium_gates.folding import fold

REACH_CHARACTERS: Final = 192
ENCODED_CHARACTERS: Final = 768
# Read again before what is new: the beginning of a sentence, the word before.
CONTEXT_CHARACTERS: Final = 256
# How much must be new before a window is read again.
STEP_CHARACTERS: Final = 48
# Runs of characters in which texts are written in another way, and how long one is that is looked at.
_ENCODED: Final = (r"[A-Za-z0-9+/_=\-\r\n]*", r"[0-9A-Fa-fxuU\\%&#;:, {}]*")
_BEFORE: Final = tuple(re.compile(one + r"\Z") for one in _ENCODED)
_AFTER: Final = tuple(re.compile(one) for one in _ENCODED)
_LEAST_ENCODED: Final = 12
_OPEN_TOKEN: Final = re.compile(rf"<[A-Z0-9_a-z]{{0,{MAX_TOKEN_CHARACTERS}}}\Z")


class Window:
    """The text of one answer: ``feed`` adds to it, ``reading`` is what rules look at, ``release`` lets some go."""

    def __init__(self, *, holds_all: bool, holds_tokens: bool, reads: bool = True) -> None:
        self._holds_all = holds_all
        # Without rules nothing is held back but what may be the beginning of a token.
        self._reach = REACH_CHARACTERS if reads else MAX_TOKEN_CHARACTERS
        self._encoded = ENCODED_CHARACTERS if reads else 0
        self._holds_tokens = holds_tokens
        self._before = ""
        self._held = ""
        self._unread = 0

    @property
    def held(self) -> str:
        """What has not gone on."""
        return self._held

    @property
    def before(self) -> int:
        """How many characters of ``reading`` have gone on already."""
        return len(self._before)

    @property
    def reading(self) -> str:
        """What rules look at: the end of what went on, and all that has not."""
        return self._before + self._held

    @property
    def is_due(self) -> bool:
        """Whether enough is new to be looked at."""
        return not self._holds_all and self._unread >= STEP_CHARACTERS and len(self._held) > self._reach

    def feed(self, text: str) -> None:
        """Adds what was written."""
        self._held += text
        self._unread += len(text)

    def boundary(self) -> int:
        """Returns how many of the held characters may go on, provided that rules have nothing against ``reading``."""
        self._unread = 0
        if self._holds_all:
            return 0
        seen = fold(self._held)
        plain = seen.readings[0]
        keep = len(plain) - self._reach
        if keep <= 0:
            return 0
        if self._encoded:
            keep = min(keep, max(_begin_of_run(plain, keep, self._encoded), len(plain) - self._encoded, 0))
        boundary = seen.place(keep, len(self._held))
        if self._holds_tokens and (token := _OPEN_TOKEN.search(self._held, 0, boundary)):
            boundary = token.start()
        return boundary

    def release(self, boundary: int) -> None:
        """Lets so many characters go."""
        gone, self._held = self._held[:boundary], self._held[boundary:]
        self._before = (self._before + gone)[-CONTEXT_CHARACTERS:]


def _begin_of_run(plain: str, place: int, most: int) -> int:
    """Returns where what looks encoded begins that goes over a place, or the place."""
    begin = place
    for before, after in zip(_BEFORE, _AFTER, strict=True):
        found, rest = before.search(plain, max(0, place - most), place), after.match(plain, place)
        if found is not None and rest is not None and rest.end() - found.start() >= _LEAST_ENCODED:
            begin = min(begin, found.start())
    return begin
