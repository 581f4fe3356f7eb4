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
