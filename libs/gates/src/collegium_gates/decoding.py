"""Pieces of a text that are written in another way: base64, hexadecimal, percent signs, entities, escapes. Pure.

What decodes to something readable is handed on with the place of the piece; what is readable in it is cut out of what
is not, so that bytes put before a hidden text do not hide it. Bounded: work grows with the length of the text alone,
and what was decoded is looked through again at most MAX_DEPTH times. One rule: a piece is never taken for harmless
because of what stands beside it.
"""

from __future__ import annotations

import binascii
import html
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from collegium_gates.folding import Folded

MAX_DEPTH: Final = 2
LEAST_CHARACTERS: Final = 4

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\-]{8,}={0,2}(?:\r?\n[A-Za-z0-9+/_\-]+={0,2})*")
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/_\-]")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){4,}[0-9A-Fa-f]?")
_SPACED_HEX: Final = re.compile(r"(?:(?:0x|\\x)?[0-9A-Fa-f]{2}(?:[ ,:;\-]|, )?){4,}")
_HEX_PAIR: Final = re.compile(r"(?:0x|\\x)?([0-9A-Fa-f]{2})")
_ESCAPES: Final = re.compile(
    r"((?:%[0-9A-Fa-f]{2})+)|(&\#?[A-Za-z0-9]{1,8};)|((?:\\x[0-9A-Fa-f]{2})+)"
    r"|\\u(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4}))|\\U([0-9A-Fa-f]{8})"
)
_READABLE: Final = re.compile(rf"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]{{{LEAST_CHARACTERS},}}")
_TEXT_BYTES: Final = re.compile(
    rb"(?:[\t\n\r\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}){4}"
)
_LAST_CODE_POINT: Final = 0x10FFFF


class Piece(NamedTuple):
    """What a piece of a text says, and where the piece is."""

    text: str
    start: int
    end: int


def pieces(text: str) -> Iterator[Piece]:
    """Yields what the pieces of a plain text say that may be base64 or hexadecimal."""
    for found in _BASE64.finditer(text):
        run = _NOT_BASE64.sub("", found.group()).encode().translate(_URL_SAFE)
        # Whatever was put before the piece may have shifted it.
        for shift in range(4):
            yield from _said(_base64(run[shift:]), found)
    for found in _HEX.finditer(text):
        run = found.group()
        for shift in range(2):
            even = run[shift : len(run) - (len(run) - shift) % 2]
            yield from _said(binascii.unhexlify(even), found)
    for found in _SPACED_HEX.finditer(text):
        yield from _said(binascii.unhexlify("".join(_HEX_PAIR.findall(found.group()))), found)


def unescaped(text: str) -> Folded | None:
    """Returns a text with what its percent signs, entities and escapes stand for, or none where there are none."""
    said: list[str] = []
    starts, ends = array("l"), array("l")
    last = 0
    for found in _ESCAPES.finditer(text):
        for place, character in enumerate(text[last : found.start()], last):
            said.append(character)
            starts.append(place)
            ends.append(place + 1)
        for character in _meant(found):
            said.append(character)
            starts.append(found.start())
            ends.append(found.end())
        last = found.end()
    if not last:
        return None
    said.append(text[last:])
    starts.extend(range(last, len(text)))
    ends.extend(range(last + 1, len(text) + 1))
    return Folded(("".join(said),), starts, ends)


def _meant(found: re.Match[str]) -> str:
    percent, entity, escapes, *codes = found.groups()
    if percent:
        return unquote(percent, errors="replace")
    if entity:
        return html.unescape(entity)
    if escapes:
        return binascii.unhexlify(escapes.replace("\\x", "")).decode("utf-8", "replace")
    point = int(next(code for code in codes if code), 16)
    return chr(point) if point <= _LAST_CODE_POINT and not 0xD800 <= point <= 0xDFFF else ""


def _base64(run: bytes) -> bytes:
    # One character over says nothing; padding is made up.
    whole = run[: len(run) - 1] if len(run) % 4 == 1 else run
    try:
        return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))
    except binascii.Error:
        return b""


def _said(plain: bytes, found: re.Match[str]) -> Iterable[Piece]:
    # Most words are no base64: what they decode to is told from text without being made one.
    if _TEXT_BYTES.search(plain) is None and plain.count(0) * 3 <= len(plain):
        return ()
    return _readable(plain, found)


def _readable(plain: bytes, found: re.Match[str]) -> Iterator[Piece]:
    texts = [plain.decode("utf-8", "replace")]
    if plain.count(0) * 3 > len(plain):
        texts += [plain[shift:].decode(name, "replace") for shift in (0, 1) for name in ("utf-16-le", "utf-16-be")]
    for text in texts:
        for readable in _READABLE.finditer(text):
            yield Piece(readable.group(), *found.span())
