"""The code in what a model wrote. Pure.

One rule: what stands in the answer is taken as it stands; only what a program does when it is started by itself is left
out, because tests import it.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final

# More than any function that a test of ours calls, and what Python's parser reads in some tens of milliseconds.
CODE_CHARS_MAX: Final = 60_000
_FENCE: Final = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_PYTHON: Final = frozenset(("python", "py", "python3", "py3"))


def code_of(text: str) -> str | None:
    """Returns the Python code of an answer; empty where there is none, none where there is more than is run.

    That is all blocks marked as Python, one after the other; without any, the unmarked ones that are Python; without
    fences the whole text, where it is Python and more than one expression.
    """
    if len(text) > 10 * CODE_CHARS_MAX:
        return None
    blocks = [(mark.lower(), body) for mark, body in _FENCE.findall(text)]
    found = [body for mark, body in blocks if mark in _PYTHON]
    if not found:
        found = [body for mark, body in blocks if not mark and parsed(body) is not None]
    if not found and not blocks:
        tree = parsed(text)
        found = [text] if tree is not None and any(not isinstance(one, ast.Expr) for one in tree.body) else []
    code = "\n".join(found)
    return _imported(code) if len(code) <= CODE_CHARS_MAX else None


def parsed(code: str) -> ast.Module | None:
    """Returns code as this Python's grammar reads it; none where it does not."""
    if len(code) > CODE_CHARS_MAX:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imported(code: str) -> str:
    """Returns code without what it does under ``if __name__ == "__main__"``, every other line where it was."""
    tree = parsed(code)
    if tree is None:
        return code
    lines = code.split("\n")
    for node in tree.body:
        if isinstance(node, ast.If) and not node.orelse and "__name__" in ast.dump(node.test):
            until = node.end_lineno or node.lineno
            lines[node.lineno - 1 : until] = ["pass", *[""] * (until - node.lineno)]
    return "\n".join(lines)
