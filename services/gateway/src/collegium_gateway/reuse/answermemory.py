"""Answers in this gateway's memory: the ones used last, up to a number and a size. Pure.

Not here: what other gateways keep (answershelf.py), and who may see what is too old (chats.py). One rule: an answer is
found under the whole of its key and nothing less.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from collegium_contracts.state import CachedAnswer

# What an entry takes beside its text, measured roughly; a limit that leaves it out is no limit.
ENTRY_BYTES: Final = 1_500


class AnswerMemory:
    """Answers by digest; the one used longest ago goes first."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, CachedAnswer] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, digest: bytes) -> CachedAnswer | None:
        """Returns an answer, however old, or none."""
        found = self._answers.get(digest)
        if found is not None:
            self._answers.move_to_end(digest)
        return found

    def put(self, answer: CachedAnswer, *, max_bytes: int, max_entries: int) -> None:
        """Keeps an answer in place of what stood under its digest, and lets go of what is beyond the limits."""
        self.drop(answer.digest)
        self._answers[answer.digest] = answer
        self.size_bytes += _size(answer)
        while self._answers and (self.size_bytes > max_bytes or len(self._answers) > max_entries):
            _, oldest = self._answers.popitem(last=False)
            self.size_bytes -= _size(oldest)

    def drop(self, digest: bytes) -> None:
        """Forgets an answer."""
        found = self._answers.pop(digest, None)
        if found is not None:
            self.size_bytes -= _size(found)

    def drop_tenant(self, tenant: str) -> None:
        """Forgets the answers of a tenant."""
        for digest in [digest for digest, answer in self._answers.items() if answer.tenant == tenant]:
            self.drop(digest)


def _size(answer: CachedAnswer) -> int:
    return ENTRY_BYTES + len(answer.output.body)
