"""Tests that come with a request for code: what is refused at the door, and how they are sealed. Pure.

One rule: a test that cannot be run, whatever the answer, is refused here by its place in the list; nothing is run here.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

import msgspec
from collegium_contracts.code_tests import TEST_CHARS_MAX, TESTS_CHARS_MAX, TESTS_MAX, CodeTest, encode_tests
from collegium_contracts.envelope import Envelope, Keyring
from collegium_contracts.parts import AnswerKind

from collegium_gateway.admission.requests import Options
from collegium_gateway.errors import ApiError


def answer_of(options: Options) -> AnswerKind | None:
    """Returns the type of answer that is wanted: with tests it is code."""
    return "code" if options.tests and options.answer is None else options.answer


def check_tests(options: Options, choices: int) -> None:
    """Raises ApiError ``invalid_value`` for tests that cannot be run, with the path of the one that is wrong."""
    if options.tests is None:
        return
    if not 1 <= len(options.tests) <= TESTS_MAX:
        raise ApiError("invalid_value", f"tests: 1 to {TESTS_MAX} of them", param="tests")
    if options.answer not in (None, "code"):
        raise ApiError("invalid_value", f"tests go with answer 'code', not {options.answer!r}", param="answer")
    if choices != 1:
        raise ApiError("unsupported_option", "tests are run on one answer: leave n out", param="n")
    chars = 0
    for index, test in enumerate(options.tests):
        path = f"tests[{index}]"
        _check_form(test, path)
        size = len(test.call) + len(test.code) + len(_written(test.equals, path))
        if size > TEST_CHARS_MAX:
            raise ApiError("invalid_value", f"{path} has more than {TEST_CHARS_MAX} characters", param=path)
        chars += size
        _check_python(test, path)
    if chars > TESTS_CHARS_MAX:
        raise ApiError("invalid_value", f"tests have more than {TESTS_CHARS_MAX} characters together", param="tests")


def sealed_tests(keyring: Keyring, tenant: str, options: Options) -> Envelope | None:
    """Returns the tests of a checked request, sealed; none where there are none."""
    return keyring.seal(tenant, encode_tests(options.tests)) if options.tests else None


def _check_form(test: CodeTest, path: str) -> None:
    has_value = test.equals is not msgspec.UNSET
    if bool(test.call.strip()) == bool(test.code.strip()):
        raise ApiError("invalid_value", f"{path}: give either a call with what it equals, or code", param=path)
    if has_value != bool(test.call.strip()):
        raise ApiError("invalid_value", f"{path}: equals goes with a call, and a call with it", param=f"{path}.equals")


def _check_python(test: CodeTest, path: str) -> None:
    name, text = ("call", test.call.strip()) if test.call.strip() else ("code", test.code)
    tree = _parsed(text, "eval" if name == "call" else "exec")
    if isinstance(tree, str):
        raise ApiError("invalid_value", f"{path}.{name} is no Python: {tree}", param=f"{path}.{name}")
    nodes = list(ast.walk(tree))
    if name == "call" and not any(isinstance(node, ast.Call) for node in nodes):
        raise ApiError("invalid_value", f"{path}.call calls nothing", param=f"{path}.call")
    if name == "code" and not any(isinstance(node, ast.Assert) for node in nodes):
        raise ApiError("invalid_value", f"{path}.code asserts nothing", param=f"{path}.code")


def _parsed(text: str, mode: str) -> ast.AST | str:
    """Returns a text as Python's grammar reads it, or why it does not; nothing of it is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text, mode=mode)
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno or 1})"
    except (ValueError, RecursionError, MemoryError):
        return "it is nested too deep, or holds what no source may"


def _written(value: Any, path: str) -> bytes:
    if value is msgspec.UNSET:
        return b""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, RecursionError, ValueError):
        raise ApiError("invalid_value", f"{path}.equals is too large a value", param=f"{path}.equals") from None
