"""The W3C ``traceparent`` header: ``00-<trace id>-<span id>-<flags>``.

One rule: what does not parse is no trace; nobody repairs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Final

LENGTH: Final = 55

_PATTERN = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII
)
# A generator of its own, so that a test that seeds the shared one does not make equal trace ids.
_bits: Callable[[int], int] = Random().getrandbits  # noqa: S311 - ids, not secrets


def parse(text: str) -> tuple[str, str, bool] | None:
    """Returns trace id, span id and the sampled flag; none where the text is no traceparent."""
    found = _PATTERN.fullmatch(text)
    if found is None or (text.startswith("00") and len(text) != LENGTH):
        return None
    return found[1], found[2], bool(int(found[3], 16) & 1)


def unsampled() -> str:
    """Makes the traceparent of a new trace that nobody records."""
    ids = f"{_bits(192) | 1 << 191 | 1:048x}"  # neither id may be all zeros
    return f"00-{ids[:32]}-{ids[32:]}-00"


def sampled_by(ratio: float) -> bool:
    """Decides by chance whether a trace is recorded."""
    return ratio >= 1 or (ratio > 0 and _bits(53) < ratio * (1 << 53))
