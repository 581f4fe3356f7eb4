"""Blocks to chunks: by headings, then paragraphs, then sentences, then words. Pure.

A chunk begins with what the one before ended with (``overlap``), unless a heading lies between. One rule: every word of
a document is in some chunk, in order, and no chunk is over its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from collegium_context.documents.blocks import Block, tokens_of
from collegium_context.documents.errors import DocumentTooLargeError

SIZE_TOKENS = 200
OVERLAP_TOKENS = 32
CHUNKS_MAX = 20_000
# A section shorter than this part of a chunk goes on into the next section.
_SMALL_SECTION = 4
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。！？])|\n+")
_HEADING_CHARS = 200


class Chunk(NamedTuple):
    """A piece of a document that is found by itself; ``headings`` are those that it stands under."""

    text: str
    headings: tuple[str, ...]
    tokens: int


class Cut(msgspec.Struct, frozen=True):
    """A document's chunks; ``title`` is the one that its format names, empty where it names none."""

    chunks: list[Chunk]
    title: str = ""


class _Piece(NamedTuple):
    """A sentence or less; ``glue`` is what stands before it where it follows another."""

    text: str
    glue: str
    tokens: int


def chunked(
    blocks: Iterable[Block], *, size_tokens: int = SIZE_TOKENS, overlap_tokens: int = OVERLAP_TOKENS
) -> list[Chunk]:
    """Cuts a document; raises :class:`DocumentTooLargeError` beyond CHUNKS_MAX chunks."""
    cutter = _Cutter(size_tokens, overlap_tokens)
    for block in blocks:
        if block.level:
            cutter.heading(block)
        else:
            for piece in _pieces(block, size_tokens):
                cutter.add(piece)
    return cutter.end()


class _Cutter:
    def __init__(self, size_tokens: int, overlap_tokens: int) -> None:
        self._size = size_tokens
        self._overlap = overlap_tokens
        self._path: list[tuple[int, str]] = []
        self._headings: tuple[str, ...] = ()
        self._pieces: list[_Piece] = []
        self._tokens = 0
        self._fresh = 0
        self._chunks: list[Chunk] = []

    def heading(self, block: Block) -> None:
        """Goes into a section: what stands before it is cut off unless it is short."""
        if self._fresh and self._tokens >= self._size // _SMALL_SECTION:
            self._cut(overlap=False)
        self._path = [one for one in self._path if one[0] < block.level]
        self._path.append((block.level, block.text[:_HEADING_CHARS]))
        for piece in _pieces(block, self._size):
            self.add(piece)

    def add(self, piece: _Piece) -> None:
        if self._fresh and self._tokens + piece.tokens > self._size:
            self._cut(overlap=True)
            while self._pieces and self._tokens + piece.tokens > self._size:
                self._tokens -= self._pieces.pop(0).tokens
        if not self._fresh:
            self._headings = tuple(text for _, text in self._path)
        self._pieces.append(piece)
        self._tokens += piece.tokens
        self._fresh += 1

    def end(self) -> list[Chunk]:
        if self._fresh:
            self._cut(overlap=False)
        return self._chunks

    def _cut(self, *, overlap: bool) -> None:
        if len(self._chunks) >= CHUNKS_MAX:
            raise DocumentTooLargeError(f"it makes more than {CHUNKS_MAX} chunks; cut it into documents")
        text = "".join(piece.text if number == 0 else piece.glue + piece.text for number, piece in _numbered(self))
        self._chunks.append(Chunk(text, self._headings, self._tokens))
        self._pieces = _last(self._pieces, self._overlap) if overlap else []
        self._tokens = sum(piece.tokens for piece in self._pieces)
        self._fresh = 0

    @property
    def pieces(self) -> Sequence[_Piece]:
        """What the next chunk holds so far."""
        return self._pieces


def _numbered(cutter: _Cutter) -> Iterable[tuple[int, _Piece]]:
    return enumerate(cutter.pieces)


def _last(pieces: Sequence[_Piece], overlap_tokens: int) -> list[_Piece]:
    kept: list[_Piece] = []
    tokens = 0
    for piece in reversed(pieces):
        tokens += piece.tokens
        if tokens > overlap_tokens:
            break
        kept.append(piece)
    return kept[::-1]


def _pieces(block: Block, size_tokens: int) -> Iterator[_Piece]:
    tokens = tokens_of(block.text)
    if tokens <= size_tokens // _SMALL_SECTION:
        yield _Piece(block.text, "\n\n", tokens)
        return
    glue = "\n\n"
    parts = block.text.splitlines() if block.keep else _SENTENCE_END.split(block.text)
    for part in parts:
        if not part.strip():
            continue
        for piece, inner in _fitting(part if block.keep else part.strip(), size_tokens):
            yield _Piece(piece, inner or glue, tokens_of(piece))
            glue = "\n" if block.keep else " "


def _fitting(sentence: str, size_tokens: int) -> Iterator[tuple[str, str]]:
    """Cuts what is no sentence any more into runs of words, and a word that is none into runs of letters."""
    if tokens_of(sentence) <= size_tokens:
        yield sentence, ""
        return
    run: list[str] = []
    tokens, first = 0, True
    for word in _words(sentence, size_tokens):
        count = tokens_of(word)
        if run and tokens + count > size_tokens:
            yield " ".join(run), "" if first else " "
            run, tokens, first = [], 0, False
        run.append(word)
        tokens += count
    if run:
        yield " ".join(run), "" if first else " "


def _words(sentence: str, size_tokens: int) -> Iterator[str]:
    for word in sentence.split():
        if len(word) <= size_tokens:
            yield word
        else:
            # A letter is a token at most.
            yield from (word[at : at + size_tokens] for at in range(0, len(word), size_tokens))
