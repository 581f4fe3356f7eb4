"""What a document is once its format is read: headings and texts, in order. Pure."""

from __future__ import annotations

import re

import msgspec

_WORD = re.compile(r"\w+|[^\w\s]")
# Embedders cut long words into pieces; five letters a piece is a little more than English has.
_LETTERS_A_PIECE = 6


class Block(msgspec.Struct, frozen=True):
    """A piece of a document: ``level`` 1 to 6 is a heading, 0 is text; ``keep`` where its lines must not be joined."""

    text: str
    level: int = 0
    keep: bool = False


class Extracted(msgspec.Struct, frozen=True):
    """A document's blocks; ``title`` is the one that its format names, empty where it names none."""

    blocks: list[Block]
    title: str = ""


def tokens_of(text: str) -> int:
    """Estimates how many tokens a text has, some percent too many rather than too few."""
    return sum(1 + (len(piece) - 1) // _LETTERS_A_PIECE for piece in _WORD.findall(text))
