"""Tests that a client gives with a task whose answer is code: what they are, and how many and how long they may be.

A test is a call and the JSON value that it is to give, or lines of Python with asserts. They are data: the gateway
reads and seals them, consensus runs them. One rule: nothing here runs anything.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

# Enough to tell a right answer from a wrong one; each is run for each answer.
TESTS_MAX: Final = 32
TEST_CHARS_MAX: Final = 4_000
TESTS_CHARS_MAX: Final = 32_000

# ``not_run``: the interpreter lacks what the answer uses, or could not be asked; that is no word about the answer.
TestState = Literal["passed", "failed", "not_run"]
# Why an answer did not pass, or was not run; empty for one that passed.
TestNote = Literal[
    "", "differs", "raised", "no_code", "syntax", "time", "memory", "lacks", "long", "crashed", "busy", "late",
]  # fmt: skip


class CodeTest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One test: an expression that calls (``call``) with the value it is to have, or ``code`` with asserts."""

    __test__ = False

    call: str = ""
    equals: Any = msgspec.UNSET
    code: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[CodeTest]).decode


def encode_tests(tests: list[CodeTest]) -> bytes:
    """Returns tests as they are sealed; raises OverflowError for a number that no JSON of ours holds."""
    return _encode(tests)


def decode_tests(plain: bytes) -> list[CodeTest]:
    """Reads what was sealed; raises msgspec.DecodeError."""
    return _decode(plain)
