"""Which of a model's endpoints a prompt goes to: the same for prompts that begin alike, so that its cache hits. Pure.

Providers keep the beginnings of prompts they have read: another prompt with the same beginning costs less there, and
nowhere else. Endpoints are ordered by rendezvous hashing (Thaler and Ravishankar, 1998), so that one that comes or goes
moves only its own prompts, within bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016), so that a favoured beginning
fills one endpoint and no more. One rule: nothing of a prompt leaves but a digest that is forgotten with the call.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

# Instructions at least this long are a beginning of their own: providers cache from about a thousand tokens on.
OWN_BYTES: Final = 1_024
# How far above the mean an endpoint may be; the bound of the paper's experiments.
LOAD_FACTOR: Final = 1.25
# So few calls at a time crowd nobody.
FREE_LOAD: Final = 4
DIGEST_BYTES: Final = 16
_INSTRUCTIONS: Final = ("system", "developer")
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Told(msgspec.Struct):
    role: str = ""
    content: Any = None


_decode_told = msgspec.json.Decoder(_Told).decode


def beginning_of(messages: bytes, tools: bytes | None) -> bytes:
    """Returns a digest of what a prompt begins with: its tools and leading instructions, and its first message where
    those are short; ``messages`` is the JSON list that the model is sent.

    Equal for all turns of a conversation, and for all tasks that are given the same long instructions.
    """
    digest = hashlib.blake2b(tools or b"", digest_size=DIGEST_BYTES)
    size = len(tools or b"")
    for raw in _decode(messages):
        told = _decode_told(raw)
        instructs = told.role in _INSTRUCTIONS
        if not instructs and size >= OWN_BYTES:
            break
        said = msgspec.json.encode([told.role, told.content])
        digest.update(said)
        size += len(said)
        if not instructs:
            break
    return digest.digest()


def order(beginning: bytes, names: Sequence[str]) -> list[int]:
    """Returns the places of all endpoints, the one that the prompt belongs to first; the same in every process."""
    weights = [hashlib.blake2b(name.encode(), key=beginning, digest_size=8).digest() for name in names]
    return sorted(range(len(names)), key=lambda place: weights[place], reverse=True)


def bound(loads: Sequence[int]) -> int:
    """Returns how many calls an endpoint may have in hand before the next one in order is asked."""
    return max(FREE_LOAD, math.ceil(LOAD_FACTOR * (sum(loads) + 1) / max(1, len(loads))))


def preferred(places: Sequence[int], loads: Sequence[int], unwell: Sequence[bool]) -> list[int]:
    """Returns the places in the order in which they are asked: those that are well and have room as they stand, then
    those that are well and full by their load, then those that failed of late."""
    most = bound(loads)
    rank = {place: at for at, place in enumerate(places)}

    def key(place: int) -> tuple[bool, bool, int, int]:
        full = loads[place] >= most
        return unwell[place], full, loads[place] if full else 0, rank[place]

    return sorted(places, key=key)
