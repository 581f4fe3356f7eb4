"""Whether a call gave what a test wants, and what all calls gave, as one key. Pure.

A wanted value is JSON, which has no tuples, sets or keys other than texts: these are read as a list, a sorted list and
their text. One rule: what is nested too deep or too large to be compared equals nothing but itself.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

DEPTH_MAX: Final = 50
# Calls that give more are compared by their beginnings.
ITEMS_MAX: Final = 100_000
# Of two floats the last digits are the order of their sums.
RELATIVE: Final = 1e-9
_DIGITS: Final = 9
_INT: Final = "\x00int "
_LONG: Final = re.compile(_INT + r"(-?[0-9a-f]+)")

_encode = msgspec.msgpack.Encoder(order="sorted").encode
_json = msgspec.json.Encoder(order="sorted").encode


class _Budget:
    """How many items may still be looked at."""

    def __init__(self) -> None:
        self.left = ITEMS_MAX


def plain(value: Any) -> Any:
    """Returns a value as JSON has it; what JSON does not have is marked by its type."""
    return _plain(value, DEPTH_MAX, _Budget())


def _plain(value: Any, depth: int, budget: _Budget) -> Any:
    budget.left -= 1
    if depth <= 0 or budget.left <= 0:
        return "\x00more"
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else f"{_INT}{value:x}"
    if isinstance(value, float):
        return value if math.isfinite(value) else f"\x00{value}"
    if isinstance(value, list | tuple):
        return [_plain(one, depth - 1, budget) for one in cast("Sequence[Any]", value)]
    if isinstance(value, set | frozenset):
        items = [_plain(one, depth - 1, budget) for one in cast("set[Any]", value)]
        return sorted(items, key=lambda one: _order(_rounded(one)))
    if isinstance(value, dict):
        named = cast("dict[Any, Any]", value)
        return {_name(name): _plain(one, depth - 1, budget) for name, one in named.items()}
    if isinstance(value, bytes):
        return f"\x00bytes {value[:ITEMS_MAX].hex()}"
    return f"\x00{type(value).__name__}"


def _order(value: Any) -> tuple[int, Any]:
    """Returns a plain value's place in a sorted list, where whoever wrote the test put it."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, str):
        long = _LONG.fullmatch(value)
        return (1, int(long[1], 16)) if long is not None else (2, value)
    if isinstance(value, list):
        return 3, [_order(one) for one in cast("list[Any]", value)]
    return 4, _encode(value)


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name
    known = plain(name)
    return known if isinstance(known, str) else _json(_rounded(known)).decode()


def equals(given: Any, wanted: Any) -> bool:
    """Whether a plain value is the wanted one; floats to nine digits."""
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        return given == wanted or (
            isinstance(given, float) | isinstance(wanted, float)
            and math.isclose(given, wanted, rel_tol=RELATIVE, abs_tol=1e-12)
        )
    if isinstance(given, list) and isinstance(wanted, list):
        one, other = cast("list[Any]", given), cast("list[Any]", wanted)
        return len(one) == len(other) and all(map(equals, one, other))
    if isinstance(given, dict) and isinstance(wanted, dict):
        mine, theirs = cast("dict[str, Any]", given), cast("dict[str, Any]", wanted)
        return mine.keys() == theirs.keys() and all(equals(mine[name], theirs[name]) for name in mine)
    return type(given) is type(wanted) and given == wanted


def behaviour(given: Sequence[Any]) -> bytes:
    """Returns the hash of what all tests gave, equal where they gave the same."""
    return hashlib.sha256(_encode([_rounded(one) for one in given])).digest()


def _rounded(value: Any) -> Any:
    """Makes floats of the same nine digits the same, and whole ones integers."""
    if isinstance(value, float):
        short = float(f"{value:.{_DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 2**53 else short
    if isinstance(value, list):
        return [_rounded(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in cast("dict[str, Any]", value).items()}
    return value
