"""What a simulated model says: tokens, answers to unknown prompts, and vectors; all deterministic.

Here: pure functions of text. Not here: recordings, scripts, the clock.
The one rule: equal input gives equal output in every process and on every run.

A token is a run of white space with up to 16 characters after it, so an ordinary English word is one token and
the tokens of a text always join to that text.
"""

import hashlib
import math
import re
import zlib
from array import array
from functools import lru_cache

_TOKEN = re.compile(r"\s*\S{1,16}|\s+")
_WORDS = (
    "river", "lantern", "copper", "orchard", "signal", "harbour", "violet", "engine", "meadow", "ledger",
    "comet", "anchor", "velvet", "granite", "willow", "beacon", "saddle", "prism", "cedar", "marble", "falcon",
    "ribbon", "tundra", "quartz", "ember", "canyon", "thistle", "summit", "walnut", "lagoon", "pepper", "mosaic",
)  # fmt: skip
_ECHOED_TOKENS = 12
_ADDED_WORDS = 8


@lru_cache(maxsize=4096)
def tokens(text: str) -> tuple[str, ...]:
    """Splits a text into its tokens; joined they are the text."""
    return tuple(_TOKEN.findall(text))


def count_tokens(text: str) -> int:
    """Returns how many tokens a text has."""
    return len(_TOKEN.findall(text))


@lru_cache(maxsize=4096)
def unrecorded_answer(model: str, prompt: str, choice: int) -> str:
    """Answers a prompt nobody recorded: its first words, then eight words drawn from model, prompt and choice."""
    seed = zlib.crc32(f"{model}\0{choice}\0{prompt}".encode())
    words: list[str] = []
    for _ in range(_ADDED_WORDS):
        # Knuth's MMIX constants: enough to scatter 32 words, and the same everywhere.
        seed = (seed * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        words.append(_WORDS[seed >> 59])
    echoed = "".join(tokens(prompt.strip())[:_ECHOED_TOKENS])
    return f"{echoed}: {' '.join(words)}." if echoed else f"{' '.join(words)}."


@lru_cache(maxsize=4096)
def embed(text: str, dimensions: int) -> "array[float]":
    """Returns a unit vector (float32) for a text: the sum of one hashed direction per word.

    Texts that share words point the same way, so nearest neighbours mean something; an empty text has a
    direction of its own.
    """
    sums = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        for index, byte in enumerate(hashlib.shake_128(word.encode()).digest(dimensions)):
            sums[index] += byte - 127.5
    length = math.sqrt(sum(value * value for value in sums)) or 1.0
    return array("f", (value / length for value in sums))
