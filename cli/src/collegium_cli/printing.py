"""Printing what verbs found, and why they failed: JSON for programs, tables and lines for people.

One rule: what a verb found goes to standard output, and why it failed to standard error, whichever of the two reads it.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

# Whether the verb that runs was asked for JSON.
_as_json: ContextVar[bool] = ContextVar("as_json", default=False)


def failing_alike(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Returns a verb whose failures are told as its options ask."""

    @functools.wraps(run)
    def told(options: argparse.Namespace) -> int:
        before = _as_json.set(options.json)
        try:
            return run(options)
        finally:
            _as_json.reset(before)

    return told


def failed(said: str, error: Exception, code: int = 1) -> int:
    """Tells why a verb failed: one line, or with ``--json`` the contract's error object; returns the exit code."""
    if _as_json.get():
        about = {
            "message": str(error),
            "type": "command_error",
            "param": None,
            "code": getattr(error, "code", "") or None,
        }
        print(msgspec.json.encode({"error": getattr(error, "told", None) or about}).decode(), file=sys.stderr)
    else:
        print(f"{said}: {error}", file=sys.stderr)
    return code


def print_json(body: Any) -> int:
    """Prints JSON on one line; returns the exit code 0."""
    print(msgspec.json.encode(body).decode())
    return 0


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Prints a table with its header; returns the exit code 0."""
    widths = [max([len(column), *(len(row[index]) for row in rows)]) for index, column in enumerate(columns)]
    for line in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def row_of(record: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """Returns a record's cells; what is absent is empty."""
    return tuple("" if record.get(column) is None else str(record[column]) for column in columns)
