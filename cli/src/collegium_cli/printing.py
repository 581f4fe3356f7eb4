"""Printing what verbs found: JSON for programs, tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


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
