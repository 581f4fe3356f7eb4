"""A conversation as the cache compares it: its turns, and what of it must be equal to the letter. Pure.

One rule: the whole conversation is the key; the last message alone never is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

# What is longer is asked: comparing it would take longer than is left, and the embedder sees its beginning alone.
TURNS_MAX = 40
CHARACTERS_MAX = 24_000
# The embedder reads 256 tokens of a turn; what differs behind them would be compared by words alone.
TURN_CHARACTERS_MAX = 1_000

_SETTING = frozenset({"system", "developer"})


class Turn(NamedTuple):
    """One message of a client or an assistant, as text."""

    role: str
    text: str


class Question(NamedTuple):
    """A whole conversation: what must be equal (``setting``, a hash of system messages), and what is compared."""

    setting: bytes
    turns: tuple[Turn, ...]


def turns_of(asked: str | Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    """Returns the turns of a recorded question: a text, or messages whose contents are texts."""
    if isinstance(asked, str):
        return (Turn("user", asked),)
    return tuple(Turn(message["role"], message["content"]) for message in asked)


def question_of(messages: bytes) -> Question | None:
    """Returns a chat's messages (JSON) as a question, or none where they are not to be compared by their words.

    None: pictures and other parts that are no text, tools' calls and results, names, a last message that is not the
    user's, or more than the limits.
    """
    decoded = msgspec.json.decode(messages, type=list[dict[str, Any]])
    setting = hashlib.sha256()
    turns: list[Turn] = []
    for message in decoded:
        role, text = message.get("role"), _text(message.get("content"))
        if text is None or {key for key, value in message.items() if value is not None} - {"role", "content"}:
            return None
        if role in _SETTING:
            # Where it stands matters as well as what it says.
            setting.update(msgspec.msgpack.encode((len(turns), role, text)))
        elif role in ("user", "assistant"):
            turns.append(Turn(role, text))
        else:
            return None
    if not turns or turns[-1].role != "user" or len(turns) > TURNS_MAX:
        return None
    lengths = [len(turn.text) for turn in turns]
    if sum(lengths) > CHARACTERS_MAX or max(lengths) > TURN_CHARACTERS_MAX or not turns[-1].text.strip():
        return None
    return Question(setting.digest(), tuple(turns))


def _text(content: object) -> str | None:
    match content:
        case str():
            return content
        case [{"type": "text", "text": str(text), **more}] if not more:
            return text
        case _:
            return None
