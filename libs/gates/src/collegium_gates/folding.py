"""Writing a text plainly: look-alikes, invisible characters, compatibility forms, digits of other scripts. Pure.

Character by character, so that every plain character knows where it came from. A character that could be read in two
ways (a digit or a letter, an ``I`` or an ``l``) makes further readings of the whole text, of the same length. One rule:
the plain text is for comparing; what is passed on is cut from the original by the places kept here.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

# Format characters, marks, controls, what is not assigned, and private characters are not seen by a reader.
_UNSEEN: Final = frozenset({"Cf", "Mn", "Me", "Cc", "Cn", "Cs", "Co"})
_KEPT_CONTROLS: Final = frozenset("\t\n\r")
# Letters without a shape: fillers of Hangul, and the empty Braille cell.
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")
_PLAIN_ASCII: Final = re.compile(r"[\t\n\r\x20-\x7e]*\Z")
_LEET: Final = {"0": "o", "1": "l", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "@": "a", "$": "s", "|": "l"}
_LEET_BESIDE_LETTERS: Final = re.compile(r"[A-Za-z][013457|8@$]|[013457|8@$][A-Za-z]|(?<=[a-z])!(?=[a-z])|(?<=[a-z])I")
_BARS: Final = re.compile(r"(?<=[a-z])I|(?<=[a-zA-Z])[1|!]|[1|!](?=[a-zA-Z])")
_TAGS: Final = range(0xE0020, 0xE007F)
_SKELETON: Final = str.maketrans("0134578@$|!iI", "oleastbasllll")
_CACHED: Final = 1 << 16


class Folded(NamedTuple):
    """A text written plainly: its readings (the first is the likeliest; all of one length), and where each character
    of them begins and ends in the original; no places mean that it is the original, character by character."""

    readings: tuple[str, ...]
    starts: array[int] | None = None
    ends: array[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the original's place of a plain one, which holds a character at least."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]

    def place(self, index: int, length: int) -> int:
        """Returns where a plain index lies in an original of a length."""
        if self.starts is None:
            return index
        return self.starts[index] if index < len(self.starts) else length

    def within(self, outer: Folded) -> Folded:
        """Returns this text's places in what its original was made from."""
        if outer.starts is None or outer.ends is None:
            return self
        if self.starts is None or self.ends is None:
            return Folded(self.readings, outer.starts, outer.ends)
        starts, ends = outer.starts, outer.ends
        return Folded(
            self.readings,
            array("l", (starts[one] for one in self.starts)),
            array("l", (ends[one - 1] for one in self.ends)),
        )


def fold(text: str) -> Folded:
    """Returns a text written plainly."""
    if _PLAIN_ASCII.match(text):
        return Folded(_readings(text, text, ambiguous=False))
    plain: list[str] = []
    letters: list[str] = []
    starts, ends = array("l"), array("l")
    ambiguous = False
    for place, character in enumerate(text):
        for one in _plain(character):
            plain.append(one[0])
            letters.append(one[1])
            starts.append(place)
            ends.append(place + 1)
            ambiguous = ambiguous or one[0] != one[1] or one[2]
    return Folded(_readings("".join(plain), "".join(letters), ambiguous=ambiguous), starts, ends)


def skeleton(text: str) -> str:
    """Returns what two plain texts share that look the same: lower case, ``i l 1 |`` one sign, digits as letters."""
    return text.translate(_SKELETON).lower()


def _readings(plain: str, letters: str, *, ambiguous: bool) -> tuple[str, ...]:
    found = [plain]
    if ambiguous or _LEET_BESIDE_LETTERS.search(letters):
        as_letters = "".join(_LEET.get(one, one) for one in letters)
        bars = [match.start() for match in _BARS.finditer(letters)]
        found += [as_letters, _with(as_letters, bars, "i"), _with(as_letters, bars, "l")]
        if ambiguous:
            found += [letters, letters.replace("l", "i"), letters.replace("I", "l")]
    return tuple(dict.fromkeys(found))


def _with(text: str, places: list[int], character: str) -> str:
    if not places:
        return text
    changed = list(text)
    for place in places:
        changed[place] = character
    return "".join(changed)


@lru_cache(maxsize=_CACHED)
def _plain(character: str) -> tuple[tuple[str, str, bool], ...]:
    """Returns what a character is written as: each plain one, how it reads as a letter, whether ``I`` and ``l`` are
    alike for it."""
    if character.isascii():
        seen = character.isprintable() or character in _KEPT_CONTROLS
        return ((character, character, False),) if seen else ()
    if ord(character) in _TAGS:
        tag = chr(ord(character) - _TAGS.start + 0x20)
        return ((tag, tag, False),)
    if unicodedata.category(character).startswith("Z"):
        return ((" ", " ", False),)
    parts = [one for one in unicodedata.normalize("NFKD", character) if not _is_unseen(one)]
    is_known = len(parts) == 1 and ((parts[0].isascii() and parts[0].isalnum()) or parts[0] in _look_alikes())
    if not is_known and character in _look_alikes():
        # A letter in brackets is a letter.
        parts = [character]
    found: list[tuple[str, str, bool]] = []
    for one in parts:
        like = _look_alikes().get(one, one)
        digit = unicodedata.decimal(one, None)
        found.append((str(digit) if digit is not None else like, like, like in "Il" and not one.isascii()))
    return tuple(found)


def _is_unseen(character: str) -> bool:
    if character in _FILLERS:
        return True
    return not character.isascii() and character not in _look_alikes() and unicodedata.category(character) in _UNSEEN


@cache
def _look_alikes() -> dict[str, str]:
    text = files("collegium_gates").joinpath("confusables.txt").read_text(encoding="utf-8")
    lines = [line.split(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {one: plain for plain, alike in lines for one in alike}
