"""CSV for spreadsheets: RFC 4180 with a header line. Pure.

One rule: no cell is a formula. Names and tags are chosen by clients, and a spreadsheet runs what begins with ``=``,
``+``, ``-`` or ``@``; such a cell gets an apostrophe in front, unless it is a plain number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

MEDIA_TYPE = "text/csv; charset=utf-8"

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # full-width forms are read likewise
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def header(columns: Sequence[str]) -> bytes:
    """Writes the header line."""
    return lines(columns, [dict(zip(columns, columns, strict=True))])


def lines(columns: Sequence[str], records: Iterable[dict[str, Any]]) -> bytes:
    """Writes one line for each record; what a record lacks is an empty cell."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    for record in records:
        writer.writerow([cell(record.get(column)) for column in columns])
    return buffer.getvalue().encode()


def cell(value: Any) -> str:
    """Writes one value; tags and other objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return msgspec.json.encode(value, order="sorted").decode() if value else ""
    text = str(value).replace("\x00", "�")
    if text.lstrip(" ").startswith(_DANGEROUS) and _NUMBER.fullmatch(text) is None:
        return f"'{text}"
    return text
