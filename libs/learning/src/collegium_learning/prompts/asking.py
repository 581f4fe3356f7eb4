"""A prompt student before a client's messages. Pure.

Examples come as turns before everything that was said, the instruction among the client's own (as a note). One rule:
what the client sent is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collegium_learning.prompts.prompt import Prompt

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


def texts_of(prompt: Prompt) -> list[str]:
    """Returns all that it says: the instruction, then each question and answer."""
    return [prompt.instruction, *(text for one in prompt.exemplars for text in (one.question, one.answer))]


def turns_of(texts: Sequence[str], history: bytes | None) -> bytes:
    """Returns the examples among ``texts`` (from the second on) as turns, and what was said before after them.

    ``history`` is JSON, a list of chat messages, or none.
    """
    shown: list[object] = [
        {"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts[1:])
    ]
    return _encode([*shown, *(_decode(history) if history is not None else [])])
