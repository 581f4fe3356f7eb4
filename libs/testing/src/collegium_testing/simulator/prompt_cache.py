"""The simulator's memory of prompts' beginnings, as providers keep one: what it has read before costs less.

The one rule: a beginning ends where a message does, and is told as cached from its second time on.
"""

import hashlib
from collections import OrderedDict

from collegium_testing.simulator.answers import count_tokens
from collegium_testing.simulator.wire import Message

MAX_BEGINNINGS = 10_000


class PromptCache:
    """The beginnings of the prompts that were read; shorter ones than `least_tokens` are not kept."""

    def __init__(self, least_tokens: int) -> None:
        self._least_tokens = least_tokens
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def read(self, model: str, messages: list[Message]) -> int:
        """Reads a prompt; returns how many of its tokens were read before in one piece from the beginning."""
        digest = hashlib.sha256(model.encode())
        tokens = cached = 0
        for message in messages:
            digest.update(f"\0{message.role}\0{message.text()}".encode())
            tokens += count_tokens(message.text())
            if tokens < self._least_tokens:
                continue
            beginning = digest.digest()
            if beginning in self._known:
                cached = tokens
            self._known[beginning] = None
            self._known.move_to_end(beginning)
        while len(self._known) > MAX_BEGINNINGS:
            self._known.popitem(last=False)
        return cached
