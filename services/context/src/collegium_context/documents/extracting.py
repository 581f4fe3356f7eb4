"""Bytes and a type to blocks. Pure: who runs it bounds its time and memory.

One rule: what cannot be read as its type is refused with what is wrong, and nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import charset_normalizer

from collegium_context.documents.blocks import Block, Extracted
from collegium_context.documents.errors import (
    DocumentTooLargeError,
    EmptyDocumentError,
    UndecodableDocumentError,
)

Kind = Literal["text", "markdown", "html", "pdf"]
KINDS: tuple[Kind, ...] = get_args(Kind)

TEXT_CHARS_MAX = 8_000_000
_PARAGRAPHS = re.compile(r"\n[ \t]*\n+")
# Control characters that no text has; a few stray ones are dropped, many are a binary file.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_CONTROL_SHARE = 0.01
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 2_048
_GUESS_BYTES = 65_536
_CHAOS_MAX = 0.1


def extracted(content: bytes, kind: Kind) -> Extracted:
    """Reads a document; raises :class:`DocumentError`."""
    found = _of_kind(content, kind)
    blocks = [block for block in found.blocks if block.text.strip()]
    if not blocks:
        raise EmptyDocumentError("there is no text in it")
    if sum(len(block.text) for block in blocks) > TEXT_CHARS_MAX:
        raise DocumentTooLargeError(f"it has over {TEXT_CHARS_MAX} characters of text")
    return Extracted(blocks, _clean(found.title).strip()[:500])


def check_begin(content: bytes, kind: Kind) -> None:
    """Refuses what can be seen to be wrong without reading on; raises :class:`DocumentError`."""
    if not content.strip():
        raise EmptyDocumentError("it is empty")
    if kind == "pdf" and not content.startswith(b"%PDF-"):
        raise UndecodableDocumentError("it does not begin as a PDF does")
    if kind != "pdf" and not content.startswith(tuple(mark for mark, _ in _BOMS)) and b"\x00" in content:
        raise UndecodableDocumentError("it is binary, not text")


def _of_kind(content: bytes, kind: Kind) -> Extracted:
    check_begin(content, kind)
    if kind == "pdf":
        from collegium_context.documents.pdf import pdf_blocks  # noqa: PLC0415 - heavy, and only the child needs it

        found = pdf_blocks(content, text_chars_max=TEXT_CHARS_MAX)
        return Extracted([Block(_clean(block.text)) for block in found.blocks], found.title)
    text = _text_of(content, kind)
    if kind == "text":
        return Extracted([Block(part.strip()) for part in _PARAGRAPHS.split(text)])
    from collegium_context.documents import markup  # noqa: PLC0415 - text needs neither library

    return markup.markdown_blocks(text) if kind == "markdown" else markup.html_blocks(text)


def _text_of(content: bytes, kind: Kind) -> str:
    text = _decoded(content, kind)
    control = len(_CONTROL.findall(text))
    if control > max(4, _CONTROL_SHARE * len(text)):
        raise UndecodableDocumentError("it is binary, not text")
    return _clean(text)


def _clean(text: str) -> str:
    return _CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def _decoded(content: bytes, kind: Kind) -> str:
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return _as(content, encoding)
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    if kind == "html" and (named := _META_CHARSET.search(content[:_HEAD_BYTES])) is not None:
        return _as(content, named[1].decode())
    best = charset_normalizer.from_bytes(content[:_GUESS_BYTES]).best()
    if best is None or best.chaos > _CHAOS_MAX:
        raise UndecodableDocumentError("its encoding is not to be told; send UTF-8")
    return _as(content, best.encoding)


def _as(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except (UnicodeError, LookupError) as error:
        raise UndecodableDocumentError("it is not in the encoding that it names; send UTF-8") from error
