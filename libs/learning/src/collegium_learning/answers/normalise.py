"""When two answers say the same: a form in which they are equal. Pure.

Not here: finding an answer inside a longer text. One rule: what could change a number or a name stays as it is
(signs, units, version numbers), so that different answers never become equal for tidiness' sake.
"""

from __future__ import annotations

import re
import unicodedata

# Longer texts are compared as they stand but for white space: two models never write the same page twice, and folding
# a megabyte would hold up everybody else.
FOLDED_CHARS_MAX = 20_000

_TYPOGRAPHY = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',  # quotes
        "\u2010": "-", "\u2011": "-", "\u2212": "-",  # hyphens and minus
        "\u200b": None, "\u2060": None, "\ufeff": None,  # invisible
    }
)  # fmt: skip
# A number of its own: neither part of a word nor of a dotted chain such as a version or a European decimal.
_NUMBER = re.compile(r"(?<![\w.,])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]+)?(?!\w|[.,][0-9])")
_MARKDOWN = "`~>"
# Punctuation by Unicode's categories, and yet part of what is said.
_MEANT = "%/\\&@#"
_SIGNS = "-."


def normalise(text: str) -> str:
    """Returns the form of an answer that equal answers share; applying it again changes nothing."""
    if len(text) > FOLDED_CHARS_MAX:
        return " ".join(text.split())
    folded = " ".join(_fold(text).split())
    return _NUMBER.sub(_plain_number, _strip_ends(folded) or folded)


def _fold(text: str) -> str:
    """Unicode's NFKC_Casefold (chapter 3.13, D146), after making typographic variants equal."""
    text = unicodedata.normalize("NFD", text).casefold()
    text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)


def _plain_number(match: re.Match[str]) -> str:
    whole: str = match[1].replace(",", "")
    fraction: str = (match[2] or "").rstrip("0").rstrip(".")
    return whole + fraction


def _strip_ends(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_wrapping(text[start]) and not _begins_number(text, start):
        start += 1
    while end > start and _is_wrapping(text[end - 1]):
        end -= 1
    heading = start
    while heading < end and text[heading] == "#":
        heading += 1
    if start < heading < end and text[heading] == " ":
        return _strip_ends(text[heading:end])
    return text[start:end]


def _begins_number(text: str, start: int) -> bool:
    """Whether a sign or a point at the start belongs to a number (-5, .5, -.5)."""
    position = start
    while position < len(text) and text[position] in _SIGNS:
        position += 1
    return start < position < len(text) and position - start <= len(_SIGNS) and text[position].isdigit()


def _is_wrapping(character: str) -> bool:
    if character in _MEANT:
        return False
    return character == " " or character in _MARKDOWN or unicodedata.category(character)[0] == "P"
