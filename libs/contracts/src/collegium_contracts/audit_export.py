"""Exported audit chains: lines of JSON, or of CSV, that carry what proves them.

The first line says whose chain it is and where it begins, then come the records in order, then signed places (anchors,
the head), then a line that counts. In CSV a line that is no record stands as JSON in the column ``details``. A cell
that a spreadsheet would run as a formula gets an apostrophe before it, and so does one that begins with an apostrophe.
One rule: what is written here can be read back to the byte that was hashed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from collegium_contracts.audit import AuditRecord, Signed
from collegium_contracts.errors import ContractError

FORMAT: Final = "collegium-audit-1"
RECORD_FIELDS: Final = tuple(name for name in AuditRecord.__struct_fields__ if name != "position")
_NUMBERS: Final = ("seq", "at_ms", "sealed_at_ms", "count", "stream_sequence")
_GUARDED: Final = ("=", "+", "-", "@", "\t", "\r", "'")

Format = Literal["jsonl", "csv"]


class MalformedExportError(ContractError):
    """A file is no export of an audit chain."""

    code = "malformed_export"


class ChainLine(msgspec.Struct, frozen=True, kw_only=True):
    """Whose chain an export holds, and after which record it begins (``after_seq`` 0: at its begin)."""

    kind: Literal["chain"] = "chain"
    format: str = FORMAT
    tenant: str
    after_seq: int
    after_hash: str
    checkpoint: Signed | None
    public_keys: dict[str, str]


class EndLine(msgspec.Struct, frozen=True, kw_only=True):
    """How many records an export holds: the last line."""

    kind: Literal["end"] = "end"
    records: int


Line = ChainLine | AuditRecord | Signed | EndLine


class Writer:
    """Writes lines of one format."""

    def __init__(self, form: Format) -> None:
        self._form = form

    def head(self) -> str:
        """What stands before the first line."""
        return _csv_line(["kind", *RECORD_FIELDS]) if self._form == "csv" else ""

    def line(self, line: Line) -> str:
        """Writes one line."""
        if isinstance(line, AuditRecord):
            fields = {name: getattr(line, name) for name in RECORD_FIELDS}
            if self._form == "jsonl":
                return _json({"kind": "record", **fields}) + "\n"
            fields["details"] = _json(fields["details"])
            return _csv_line(["record", *(str(value) for value in fields.values())])
        content: dict[str, Any] = msgspec.to_builtins(line)
        if self._form == "jsonl":
            return _json(content) + "\n"
        cells = {"details": _json(content)}
        return _csv_line([content["kind"], *(cells.get(name, "") for name in RECORD_FIELDS)])


def read_lines(text: Iterable[str]) -> Iterator[Line]:
    """Reads an export of either format line by line; raises MalformedExportError."""
    lines = iter(text)
    first = next(lines, "")
    if first.startswith("{"):
        yield _read_json(first, 1)
        for number, line in enumerate(lines, 2):
            if line.strip():
                yield _read_json(line, number)
        return
    rows = csv.reader(_chained(first, lines))
    if next(rows, None) != ["kind", *RECORD_FIELDS]:
        raise MalformedExportError("the first line is neither JSON nor the columns of an export")
    for number, row in enumerate(rows, 2):
        if len(row) != 1 + len(RECORD_FIELDS):
            raise MalformedExportError(f"row {number} has {len(row)} cells instead of {1 + len(RECORD_FIELDS)}")
        cells = dict(zip(("kind", *RECORD_FIELDS), map(_unguarded, row), strict=True))
        yield _read_cells(cells, number)


def _read_json(line: str, number: int) -> Line:
    try:
        return _convert(json.loads(line))
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise MalformedExportError(f"line {number} is no line of an export: {error}") from None


def _read_cells(cells: dict[str, Any], number: int) -> Line:
    try:
        details = json.loads(cells["details"])
        if cells["kind"] != "record":
            return _convert(details)
        cells.update({name: int(cells[name]) for name in _NUMBERS}, details=details)
        return _convert(cells)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise MalformedExportError(f"row {number} is no row of an export: {error}") from None


def _convert(content: Any) -> Line:
    kind = content.get("kind") if isinstance(content, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    match kind:
        case "record":
            return msgspec.convert({**content, "position": 0}, AuditRecord)
        case "chain":
            return msgspec.convert(content, ChainLine)
        case "end":
            return msgspec.convert(content, EndLine)
        case _:
            return msgspec.convert(content, Signed)


def _chained(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _csv_line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([f"'{cell}" if cell.startswith(_GUARDED) else cell for cell in cells])
    return out.getvalue()


def _unguarded(cell: str) -> str:
    return cell.removeprefix("'")
