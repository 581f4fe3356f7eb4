"""Whose fault it is that code did not run: the code's, or the interpreter's, which knows a part of the language. Pure.

The interpreter raises Python's own exceptions for both. What it says of its own limits (a statement it does not know, a
module it does not have) is plain; of the rest, what CPython would have raised just so counts against the code, and what
it might not have counts for nothing. One rule: in doubt the code was not run.
"""

from __future__ import annotations

import builtins
import re
from typing import Final

from collegium_contracts.code_tests import TestNote, TestState

# Exceptions that say of the code what they say in CPython.
_OWN: Final = frozenset((
    "AssertionError", "IndexError", "KeyError", "LookupError", "ValueError", "ZeroDivisionError", "ArithmeticError",
    "OverflowError", "StopIteration", "RuntimeError", "RecursionError", "UnboundLocalError", "Exception", "SystemExit",
    "KeyboardInterrupt", "BaseException", "UnicodeDecodeError", "UnicodeEncodeError", "json.JSONDecodeError",
    "JSONDecodeError", "FrozenInstanceError",
))  # fmt: skip
# CPython's own words for a wrong call or a wrong operand; other type errors may be the interpreter's alone.
_TYPE_ERRORS: Final = re.compile(
    r"unsupported operand type|not supported between instances|"
    r"missing \d+ required (?:positional|keyword-only) argument|takes \d+ positional arguments? but|"
    r"takes from \d+ to \d+ positional|'NoneType' object|object is not (?:iterable|subscriptable|callable)|"
    r"can only concatenate|unhashable type|indices must be integers|does not support item assignment|"
    r"cannot unpack non-iterable"
)
_ATTRIBUTE: Final = re.compile(r"'(\w+)' object has no attribute '(\w+)'")
_NAME: Final = re.compile(r"name '(\w+)' is not defined")
# What the interpreter says of itself by a type that Python has too; its other types count for nothing anyway.
_OURS: Final = re.compile(
    r"(?:\w+: )?(?:suspension limit \d+ exceeded|Internal error in monty: |"
    r"'[^']*' error handler is not supported by Monty )"
)
_OURS_KINDS: Final = frozenset((
    "RuntimeError", "LookupError", "ValueError", "UnicodeDecodeError", "UnicodeEncodeError",
))  # fmt: skip


def blame(kind: str, message: str, *, is_python: bool, is_over: bool = False) -> tuple[TestState, TestNote]:
    """Returns what an exception says of the code, by its type's name and its message.

    ``is_python``: CPython's grammar reads the code, so that a syntax error is the interpreter's. ``is_over``: all the
    time of a call had passed; before that a TimeoutError is one that the code raised.
    """
    if kind == "TimeoutError":
        return "failed", "time" if is_over else "raised"
    if kind == "MemoryError":
        return "failed", "memory"
    if kind == "SyntaxError":
        return ("not_run", "lacks") if is_python else ("failed", "syntax")
    if kind in _OURS_KINDS and _OURS.match(message):
        return "not_run", "lacks"
    return ("failed", "raised") if _is_own(kind, message) else ("not_run", "lacks")


def _is_own(kind: str, message: str) -> bool:
    if kind in _OWN:
        return True
    if kind == "TypeError":
        return _TYPE_ERRORS.search(message) is not None
    if kind == "NameError":
        named = _NAME.search(message)
        return named is not None and not hasattr(builtins, named[1]) and not named[1].startswith("__")
    if kind == "AttributeError":
        named = _ATTRIBUTE.search(message)
        known = getattr(builtins, named[1], None) if named is not None else None
        if named is not None and named[1] == "NoneType":
            known = type(None)
        # Of a type that Python does not have built in, nobody here knows its attributes.
        return named is not None and isinstance(known, type) and not hasattr(known, named[2])
    return False
