"""What is kept in mind of turns that no longer fit: sentences of theirs, chosen without a model. Pure.

Each turn is reduced once, after the fact, to its weightiest sentences (a gist). When turns do not fit into a model's
window, the gists of those left out are put together into a summary: the weightiest sentences that do not repeat each
other, in their order, as many as there is room for. One rule: a summary holds only what was said, word for word, and
says that it is incomplete.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from collegium_contracts.content import ChatMessage

from collegium_context.memory.words import words_of

SENTENCES_MAX = 6
SENTENCE_CHARS_MAX = 300
# Of a very long turn only the beginning is read; a summary of more sentences would not fit anyway.
SENTENCES_READ_MAX = 400
CHOSEN_MAX = 60
# What a sentence loses whose words were all said before, and beyond how many uses a word weighs no more.
_REPEATED = 0.95
_USES_MAX = 4
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_NUMBER = re.compile(r"\d")
_NAME = re.compile(r"(?<!^)(?<![.!?]\s)\b[A-Z][a-zA-Z]+")
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|my|we|our|me|us|ich|wir|mein|unser)\b", re.IGNORECASE)
_SPOKEN = ("user", "assistant")
_HEAD = "Earlier in this conversation (an incomplete extract of {turns} older turns, word for word):"


class Sentence(msgspec.Struct, frozen=True, array_like=True):
    """One sentence of a turn: who said it, and how much it weighs within its turn."""

    role: str
    text: str
    weight: float


Gist = list[Sentence]
_decode = msgspec.json.Decoder(Gist).decode
_encode = msgspec.json.Encoder().encode


def gist_of(messages: Sequence[ChatMessage]) -> Gist:
    """Reduces a turn to its weightiest sentences, in their order."""
    spoken = [
        (message.role, sentence)
        for message in messages
        if message.role in _SPOKEN
        for sentence in _sentences(text_of(message))
    ][:SENTENCES_READ_MAX]
    frequent = Counter(word for _, sentence in spoken for word in set(words_of(sentence)))
    weighed = [Sentence(role, sentence, _weight(role, sentence, frequent)) for role, sentence in spoken]
    return _weightiest(weighed, lambda _sentence, chosen: chosen < SENTENCES_MAX)


def encode_gist(gist: Gist) -> bytes:
    """Writes a gist as JSON."""
    return _encode(gist)


def decode_gist(plain: bytes) -> Gist:
    """Reads a gist; raises msgspec.DecodeError."""
    return _decode(plain)


def summary_of(gists: Sequence[Gist], *, max_bytes: int) -> str:
    """Puts the gists of turns (oldest first) together into at most ``max_bytes`` of UTF-8; empty where nothing fits."""
    sentences = [sentence for gist in gists for sentence in gist]
    head = _HEAD.format(turns=len(gists))
    room = max_bytes - len(head.encode())

    def fits(sentence: Sentence, _chosen: int) -> bool:
        nonlocal room
        size = len(_line(sentence).encode()) + 1
        if size > room:
            return False
        room -= size
        return True

    chosen = _weightiest(sentences, fits)
    return "\n".join([head, *(_line(sentence) for sentence in chosen)]) if chosen else ""


def _weightiest(sentences: Sequence[Sentence], takes: Callable[[Sentence, int], bool]) -> Gist:
    """Chooses sentences by weight, those first that say something new, as long as ``takes`` takes them; in order."""
    left = {place: set(words_of(sentence.text)) for place, sentence in enumerate(sentences)}
    chosen: list[int] = []
    said: set[str] = set()
    while left and len(chosen) < CHOSEN_MAX:
        best = max(left, key=lambda place: (_gain(sentences[place], left[place], said), -place))
        words = left.pop(best)
        if (words and words <= said) or not takes(sentences[best], len(chosen)):
            continue
        said |= words
        chosen.append(best)
    return [sentences[place] for place in sorted(chosen)]


def _gain(sentence: Sentence, words: set[str], said: set[str]) -> float:
    return sentence.weight * (1 - _REPEATED * (len(words & said) / len(words) if words else 1))


def _line(sentence: Sentence) -> str:
    return f"- {sentence.role}: {sentence.text}"


def text_of(message: ChatMessage) -> str:
    """Returns the text of a message; parts that are no text are left out."""
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for part in message.content or ():
        match msgspec.json.decode(part):
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                continue
    return "\n".join(texts)


def _sentences(text: str) -> list[str]:
    parts = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    return [part if len(part) <= SENTENCE_CHARS_MAX else part[: SENTENCE_CHARS_MAX - 1] + "…" for part in parts if part]


def _weight(role: str, sentence: str, frequent: Counter[str]) -> float:
    words = set(words_of(sentence))
    if not words:
        return 0.0
    shared = sum(math.log1p(min(frequent[word], _USES_MAX)) for word in words) / math.sqrt(len(words) + 3)
    facts = 0.5 * bool(_NUMBER.search(sentence)) + 0.4 * bool(_NAME.search(sentence))
    own = 0.5 * bool(_FIRST_PERSON.search(sentence)) if role == "user" else 0.0
    return round(shared + facts + own + (0.3 if role == "user" else 0.0), 4)
