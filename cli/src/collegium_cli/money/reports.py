"""The verbs ``requests`` and ``invoice``: the request log, its export, and invoices."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError
from collegium_cli.files import save, whole
from collegium_cli.learning.models import print_json, print_table, row_of, run_with

PAGE_ROWS = 1_000
# Rows that are held until they are written; more are a larger file in no less time.
GROUP_ROWS = 50_000
_COLUMNS = ("settled_at", "task_id", "state", "model", "rank", "input_tokens", "output_tokens", "charged_usd", "key_id")
_INVOICE_COLUMNS = ("id", "tenant", "month", "total_usd", "made_at")


def requests(settings: Settings, options: argparse.Namespace) -> int:
    """Lists settled requests, or exports them to a file."""

    def act(client: Client) -> int:
        if options.action == "export":
            return _export(client, options)
        page = client.call("GET", f"/v1/requests?{urlencode(_query(options) | {'limit': options.limit})}")
        if options.json:
            return print_json(page["data"])
        return print_table(_COLUMNS, [row_of(one, _COLUMNS) for one in page["data"]])

    return run_with(settings, "requests", act)


def _query(options: argparse.Namespace) -> dict[str, Any]:
    given = {
        "from": options.since,
        "to": options.until,
        "state": options.state,
        "model": options.model,
        "key": options.key,
        "tenant": options.tenant,
    }
    return {name: value for name, value in given.items() if value}


def _export(client: Client, options: argparse.Namespace) -> int:
    if (options.csv is None) == (options.parquet is None):
        raise ClientError("give --csv FILE or --parquet FILE")
    if options.csv is not None:
        query = _query(options) | {"format": "csv"}
        return save(options.csv, client.download(f"/v1/requests?{urlencode(query)}"))
    return _parquet(client, options, options.parquet)


def _parquet(client: Client, options: argparse.Namespace, path: Path) -> int:
    """Writes the log as Parquet by way of JSON lines on disk, so that memory holds one group of rows at most."""
    from arro3.io import read_json, write_parquet

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        lines = Path(folder) / "rows.json"
        with lines.open("wb") as file:
            for page in _pages(client, _query(options)):
                file.writelines(msgspec.json.encode(_flat(row)) + b"\n" for row in page)
        with whole(path) as draft:
            rows = read_json(lines, _schema(), batch_size=8_192)
            write_parquet(rows, draft, compression="zstd(3)", max_row_group_size=GROUP_ROWS)
    return 0


def _pages(client: Client, query: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    cursor = ""
    while True:
        page = client.call("GET", f"/v1/requests?{urlencode(query | {'limit': PAGE_ROWS, 'cursor': cursor})}")
        yield page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Writes tags as JSON text: names that clients choose are no columns. Gateways of before tell no written tokens."""
    return {"cache_write_tokens": 0} | row | {"tags": msgspec.json.encode(row["tags"], order="sorted").decode()}


def _schema() -> Any:
    from arro3.core import DataType, Field, Schema

    text, number, moment = DataType.utf8(), DataType.int64(), DataType.timestamp("ms", tz="UTC")
    # Exact to the pico-dollar, as everywhere.
    money = DataType.decimal128(38, 12)
    kinds = {
        "task_id": text, "project": text, "key_id": text, "created_at": moment, "settled_at": moment, "state": text,
        "stop_reason": text, "error_code": text, "model": text, "rank": text, "plan": text, "calls": number,
        "input_tokens": number, "cached_input_tokens": number, "output_tokens": number, "reasoning_tokens": number,
        "estimated": DataType.bool(), "cost_usd": money, "charged_usd": money, "reference_model": text,
        "reference_usd": money, "tags": text, "cache_write_tokens": number,
    }  # fmt: skip
    return Schema([Field(name, kind, nullable=name == "created_at") for name, kind in kinds.items()])


def invoices(settings: Settings, options: argparse.Namespace) -> int:
    """Makes, lists and shows invoices."""

    def act(client: Client) -> int:
        if options.action == "create":
            if not options.tenant or not options.month:
                raise ClientError("give --tenant and --month, for instance --month 2026-01")
            return _document(client.call("POST", "/v1/admin/invoices", _of(options)), options)
        if options.action == "show":
            if not options.id:
                raise ClientError("give an invoice's id (`collegium invoice ls` shows them)")
            path = f"/v1/invoices/{quote(options.id, safe='')}"
            if options.html is not None:
                return save(options.html, client.download(f"{path}?format=html"))
            return _document(client.call("GET", path), options)
        query = f"?{urlencode({'tenant': options.tenant})}" if options.tenant else ""
        data = client.call("GET", f"/v1/invoices{query}")["data"]
        if options.json:
            return print_json(data)
        return print_table(_INVOICE_COLUMNS, [row_of(one, _INVOICE_COLUMNS) for one in data])

    return run_with(settings, "invoice", act)


def _of(options: argparse.Namespace) -> dict[str, str]:
    return {"tenant": options.tenant, "month": options.month}


def _document(invoice: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        return print_json(invoice)
    columns = ("project", "model", "requests", "input_tokens", "output_tokens", "amount_usd")
    rows = [row_of(line, columns) for line in invoice["lines"]]
    rows.append((invoice["id"], "", "", "", "total", invoice["total_usd"]))
    return print_table(columns, rows)
