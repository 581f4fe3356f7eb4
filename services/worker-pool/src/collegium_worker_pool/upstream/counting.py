"""How many tokens a text or a prompt is, where its endpoint did not say. Pure.

Every endpoint has a vocabulary of its own, so this counts by the way in which byte-pair vocabularies of today cut text:
a word is a token or two, digits go by threes, signs by threes, and other scripts by what they take on average. Beside
OpenAI's ``o200k`` it is within a fifth for English, code and most larger languages, where four bytes a token, the usual
figure, is off by half for Russian or Arabic. One rule: a text that is not empty is a token at least, and never more
tokens than bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

# Beyond it the rest counts as the part before it did: counting must not hold up the worker.
MAX_COUNTED_CHARACTERS: Final = 100_000
# What a message costs beside its text, and about what a picture does.
MESSAGE_TOKENS: Final = 4
PICTURE_TOKENS: Final = 1_000
_DEPTH_MAX: Final = 8

_EAST = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_PIECES: Final = re.compile(
    r"(?P<plain>[A-Za-z]++)(?![\u00c0-\u024f])"
    r"|(?P<marked>[A-Za-z\u00c0-\u024f]+)"
    r"|(?P<digits>[0-9]+)"
    rf"|(?P<east>[{_EAST}]+)"
    r"|(?P<blanks>\s+)"
    r"|(?P<signs>[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]+)"
    rf"|(?P<other>[^\x00-\x7f\u00c0-\u024f{_EAST}\s]+)"
)
# Characters a token, by kind; a piece takes whole tokens, but the eastern scripts, which know no words.
_LETTERS: Final = {"plain": 8, "marked": 6, "digits": 3, "signs": 3, "other": 4}


def count_tokens(text: str) -> int:
    """Returns about how many tokens a text is, 0 for none; in time at most linear in its length."""
    if not text:
        return 0
    counted = text[:MAX_COUNTED_CHARACTERS]
    tokens = east = 0
    for match in _PIECES.finditer(counted):
        kind, length = match.lastgroup or "", match.end() - match.start()
        if kind == "east":
            east += length
        elif kind == "blanks":
            # A single blank belongs to the word after it.
            tokens += match.group() != " "
        else:
            tokens += -(-length // _LETTERS[kind])
    tokens += -(-3 * east // 4)
    tokens = -(-tokens * len(text) // len(counted))
    return min(max(1, tokens), len(text.encode()))


def count_prompt(prompt: bytes) -> int:
    """Returns about how many tokens a prompt is, a JSON list of chat messages; never more than its bytes."""
    try:
        decoded = msgspec.json.decode(prompt)
    except msgspec.DecodeError:
        return 0
    if not isinstance(decoded, list):
        return 0
    messages = cast("list[Any]", decoded)
    texts: list[str] = []
    tokens = MESSAGE_TOKENS * len(messages)
    for text in _texts(messages, _DEPTH_MAX):
        if text.startswith(("data:", "http://", "https://")) and " " not in text:
            tokens += PICTURE_TOKENS
        else:
            texts.append(text)
    return min(tokens + count_tokens("\n".join(texts)), len(prompt))


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Yields the texts of messages: what stands under a key that says what kind of part it is does not count."""
    if isinstance(value, str):
        yield value
    elif depth > 0 and isinstance(value, list):
        for one in cast("list[Any]", value):
            yield from _texts(one, depth - 1)
    elif depth > 0 and isinstance(value, dict):
        for key, one in cast("dict[str, Any]", value).items():
            if key not in ("role", "type", "id", "tool_call_id"):
                yield from _texts(one, depth - 1)
