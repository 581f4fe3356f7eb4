"""A stream of text from numbered chunks that may be lost, late, doubled, or from a second try. Pure.

The stream follows the first delivery it sees; a gap ends the live part, and the settled text completes it. One rule:
what a client was sent is never sent again and never taken back.
"""

from __future__ import annotations


class TextStream:
    """What of an answer's text was passed on, and what may be passed on next."""

    def __init__(self) -> None:
        self._source: tuple[int, int] | None = None
        self._next = 0
        self._broken = False
        self._sent: list[str] = []

    @property
    def sent(self) -> str:
        """The text passed on so far."""
        return "".join(self._sent)

    def chunk(self, attempt: int, delivery: int, number: int, text: str) -> str:
        """Takes a chunk and returns the text to pass on now; empty for a doubled, foreign or post-gap chunk."""
        if self._source is None:
            self._source = (attempt, delivery)
        if self._broken or (attempt, delivery) != self._source or number < self._next:
            return ""
        if number > self._next:
            self._broken = True
            return ""
        self._next = number + 1
        self._sent.append(text)
        return text

    def complete(self, full: str) -> str | None:
        """Returns what is left of the settled text; none where it does not continue what was sent."""
        sent = self.sent
        if not full.startswith(sent):
            return None
        return full[len(sent) :]


Source = tuple[int, int]
Token = tuple[Source, int, str]


class JoinedText:
    """What one follower of a task was told of each text (by attempt and delivery): its tokens join to the whole.

    A chunk before which one is missing waits until a checkpoint, or the settled text, has told what was missed. A token
    is a source, the number of the last chunk that it covers, and its text.
    """

    def __init__(self) -> None:
        self._texts: dict[Source, _Text] = {}
        self._latest: Source = (1, 1)

    def chunk(self, source: Source, number: int, text: str) -> list[Token]:
        """Takes a chunk and returns the tokens to tell now."""
        known = self._of(source)
        if number >= known.next:
            known.waiting[number] = text
        return self._contiguous(source, known)

    def checkpoint(self, source: Source, chunks: int, text: str) -> list[Token]:
        """Takes the text of the first ``chunks`` chunks and returns the tokens to tell now."""
        known = self._of(source)
        tokens: list[Token] = []
        if chunks > known.next:
            missed = text[len(known.told) :]
            known.told, known.next = text, chunks
            tokens.append((source, chunks - 1, missed))
        return tokens + self._contiguous(source, known)

    def complete(self, full: str) -> list[Token]:
        """Returns what is left of the settled text; nothing where it does not continue what was told."""
        known = self._of(self._latest)
        rest = full[len(known.told) :] if full.startswith(known.told) else ""
        return [(self._latest, known.next, rest)] if rest else []

    def _of(self, source: Source) -> _Text:
        self._latest = source
        return self._texts.setdefault(source, _Text())

    def _contiguous(self, source: Source, known: _Text) -> list[Token]:
        known.waiting = {number: text for number, text in known.waiting.items() if number >= known.next}
        tokens: list[Token] = []
        while (text := known.waiting.pop(known.next, None)) is not None:
            tokens.append((source, known.next, text))
            known.told += text
            known.next += 1
        return tokens


class _Text:
    """What was told of one text, which chunk comes next, and those that wait for it."""

    def __init__(self) -> None:
        self.told = ""
        self.next = 0
        self.waiting: dict[int, str] = {}
