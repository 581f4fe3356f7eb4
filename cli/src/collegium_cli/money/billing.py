"""The verb ``billing`` (audits, corrections, comparison with a provider) and the prices of ``model``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.money.compare import Columns, UsageFileError, booked_sums, compare, read_file
from collegium_cli.printing import failed, print_json, print_table, row_of

COMPARED = (
    "model", "day", "input_tokens", "output_tokens", "cost_usd",
    "input_tokens_more", "output_tokens_more", "cost_usd_more",
)  # fmt: skip
CLASSES = ("input", "cached_input", "cache_write", "output", "reasoning")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Runs one action of ``billing``; 1 where a law is broken, something differs, or nothing could be asked."""
    actions: dict[str, Callable[[Client, argparse.Namespace], int]] = {
        "audit": _audit,
        "correct": _correct,
        "compare": _compare,
    }
    try:
        return actions[options.action](connect(runtime_of(settings)), options)
    except (ClientError, UsageFileError, OSError) as error:
        return failed("collegium billing", error)


def prices(client: Client, options: argparse.Namespace) -> int:
    """Lists the versions of a model's prices, or gives it new ones; raises ClientError."""
    if not options.name:
        raise ClientError("give the name of a model")
    path = f"/v1/admin/models/{quote(options.name, safe='')}"
    if options.action == "prices":
        data = client.call("GET", f"{path}/prices")["data"]
        if options.json:
            return print_json(data)
        columns = (
            "version",
            "valid_from",
            "state",
            *(f"cost.{name}" for name in CLASSES),
            *(f"charge.{name}" for name in CLASSES),
        )
        return print_table(columns, [_price_row(one) for one in data])
    if options.action == "withdraw":
        return _withdraw(client, options, path)
    body: dict[str, Any] = {"cost": _block(options, "")}
    if charge := _block(options, "charge_"):
        body["charge"] = charge
    if options.since:
        body["valid_from"] = options.since
    if options.dry_run:
        return print_json({"model": options.name, **body})
    made = client.call("POST", f"{path}/price", body)
    if options.json:
        return print_json(made)
    print(f"{made['model']}: version {made['version']} from {made['valid_from']}")
    return 0


def _withdraw(client: Client, options: argparse.Namespace, path: str) -> int:
    """Takes a scheduled version back; raises ClientError."""
    if options.version is None:
        raise ClientError("give the version that is taken back with --version; `model prices` lists them")
    if options.dry_run:
        return print_json({"model": options.name, "version": options.version, "withdrawn": False})
    gone = client.call("DELETE", f"{path}/prices/{options.version}")
    if options.json:
        return print_json(gone)
    print(f"{gone['model']}: version {gone['version']} will not begin")
    return 0


def _price_row(version: dict[str, Any]) -> tuple[str, ...]:
    figures = (version[block][f"{name}_usd_per_mtok"] for block in ("cost", "charge") for name in CLASSES)
    return (str(version["version"]), version["valid_from"], version["state"], *figures)


def _block(options: argparse.Namespace, prefix: str) -> dict[str, str]:
    names = {**{name: f"{name}_usd_per_mtok" for name in CLASSES}, "call": "call_usd", "markup": "markup"}
    given = {field: getattr(options, prefix + name, None) for name, field in names.items()}
    return {field: value for field, value in given.items() if value is not None}


def _audit(client: Client, options: argparse.Namespace) -> int:
    """Checks day by day, so that no answer has to look at all books at once."""
    until = _time(options.until) if options.until else datetime.now(UTC)
    first = client.call("GET", f"/v1/admin/ledger/audit?{_range(until - timedelta(seconds=1), until)}")["first_at"]
    since = _time(options.since) if options.since else _time(first) if first else until - timedelta(days=1)
    # Sums are by the hour, so that an hour must not be cut.
    since = since.replace(minute=0, second=0, microsecond=0)
    laws: dict[str, dict[str, Any]] = {}
    while since < until:
        upper = min(since + timedelta(days=1), until)
        for law in client.call("GET", f"/v1/admin/ledger/audit?{_range(since, upper)}")["data"]:
            known = laws.setdefault(law["name"], {**law, "violations": 0, "examples": []})
            known["violations"] += law["violations"]
            known["examples"] = [*known["examples"], *law["examples"]][:3]
        since = upper
    if options.json:
        print_json(list(laws.values()))
    else:
        for law in laws.values():
            state = f"{law['violations']} VIOLATIONS" if law["violations"] else "holds"
            places = f" ({', '.join(law['examples'])})" if law["examples"] else ""
            print(f"{state}: {law['name']}: {law['meaning']}{places}")
    return 1 if any(law["violations"] for law in laws.values()) else 0


def _correct(client: Client, options: argparse.Namespace) -> int:
    wanted = {"id": options.id, "tenant": options.tenant, "usd": options.usd, "reason": options.reason}
    absent = [name for name, value in wanted.items() if not value]
    if absent:
        raise ClientError(f"give --{absent[0]}")
    if options.dry_run:
        return print_json(wanted)
    made = client.call("POST", "/v1/admin/ledger/corrections", wanted)
    if options.json:
        return print_json(made)
    print(f"correction {made['id']}: {made['tenant']} {made['usd']} USD at {made['at']}")
    return 0


def _compare(client: Client, options: argparse.Namespace) -> int:
    if options.csv is None:
        raise ClientError("give --csv")
    columns = Columns(
        options.model_column, options.day_column, options.input_column, options.output_column, options.cost_column
    )
    names = dict(pair.split("=", 1) for pair in options.name if "=" in pair)
    with Path(options.csv).open(newline="", encoding="utf-8-sig") as file:
        provider = read_file(file, columns, names)
    if not provider:
        raise ClientError(f"{options.csv} holds no usage")
    days = [day for _, day in provider]
    query = urlencode({"from": min(days), "to": (_time(max(days)) + timedelta(days=1)).isoformat()})
    booked = booked_sums(client.call("GET", f"/v1/admin/ledger/calls?{query}")["data"], columns)
    found = compare(provider, booked)
    differing = [one for one in found if not one.is_none]
    rows = [one.row() for one in (found if options.all else differing)]
    if options.json:
        print_json(rows)
    else:
        print_table(COMPARED, [row_of(row, COMPARED) for row in rows])
        print(f"{len(differing)} of {len(found)} models and days differ", file=sys.stderr)
    return 1 if differing else 0


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ClientError(f"{text!r} is no time in RFC 3339 and no date") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _range(since: datetime, until: datetime) -> str:
    return urlencode({"from": since.isoformat(), "to": until.isoformat()})
