"""The verbs ``model`` and ``spend``: the admin API as tables or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.files import save
from collegium_cli.learning.evolution import change
from collegium_cli.learning.evolution_arguments import ACTIONS
from collegium_cli.learning.roster import change_roster
from collegium_cli.learning.roster_arguments import ACTIONS as ROSTER_ACTIONS
from collegium_cli.money.billing import prices
from collegium_cli.money.quotas import quota_text
from collegium_cli.printing import failed, print_json, print_table, row_of

MODEL_COLUMNS = (
    "name", "rank", "pool", "breaker", "endpoint", "quota", "in $/M", "out $/M", "calls", "success", "p50 ms", "judged",
    "score", "cost USD",
)  # fmt: skip


def models(settings: Settings, options: argparse.Namespace) -> int:
    """Shows the roster with each model's scores over all domains."""

    def act(client: Client) -> int:
        if options.action in ACTIONS:
            return change(client, options)
        if options.action in ROSTER_ACTIONS:
            return change_roster(client, options)
        if options.action != "ls":
            return prices(client, options)
        data = client.call("GET", "/v1/admin/models")["data"]
        if options.json:
            return print_json(data)
        rows = [_model_row(model) for model in data]
        return print_table(MODEL_COLUMNS, rows)

    return run_with(settings, "model", act)


def _model_row(model: dict[str, Any]) -> tuple[str, ...]:
    scores = model["scores"]
    calls = sum(score["calls"] for score in scores)
    succeeded = sum(score["succeeded"] for score in scores)
    # Medians cannot be joined: the slowest domain's is the one that is never too good.
    slowest = max((score["duration_ms_p50"] or 0.0 for score in scores), default=0.0)
    judged = sum(score["judged"] for score in scores)
    total = sum(score["judged"] * (score["score_mean"] or 0.0) for score in scores)
    cost = sum((Decimal(score["cost_usd"]) for score in scores), Decimal(0))
    price = model["price"]
    return (
        f"{model['name']}{_aside(model)}",
        model["rank"],
        model["pool"],
        model["breaker"]["state"],
        (model.get("endpoint") or {}).get("state", "-"),
        quota_text(model["limits"]),
        price["input_usd_per_mtok"],
        price["output_usd_per_mtok"],
        str(calls),
        f"{succeeded / calls:.1%}" if calls else "-",
        f"{slowest:.0f}" if calls else "-",
        str(judged),
        f"{total / judged:.2f}" if judged else "-",
        f"{cost:f}",
    )


def _aside(model: dict[str, Any]) -> str:
    if not model["enabled"]:
        return " (disabled)"
    return " (drained)" if model["drained"] else ""


def spend(settings: Settings, options: argparse.Namespace) -> int:
    """Reports usage and cost."""

    def act(client: Client) -> int:
        query = {"group_by": options.group_by}
        query.update({name: value for name, value in (("from", options.since), ("to", options.until)) if value})
        if options.csv is not None:
            return save(options.csv, client.download(f"/v1/usage?{urlencode({**query, 'format': 'csv'})}"))
        report = client.call("GET", f"/v1/usage?{urlencode(query)}")
        if options.json:
            return print_json(report)
        groups = tuple(name for name in options.group_by.split(",") if name)
        columns = (*groups, "requests", "input_tokens", "output_tokens", "cost_usd", "charged_usd", "margin_usd")
        columns += ("wasted_usd", "saved_usd")
        rows = [row_of(one, columns) for one in report["data"]]
        rows.append(
            row_of({**dict.fromkeys(groups, ""), **report["totals"], groups[0] if groups else "": "total"}, columns)
        )
        return print_table(columns, rows)

    return run_with(settings, "spend", act)


def run_with(settings: Settings, verb: str, act: Callable[[Client], int]) -> int:
    """Runs a verb with a client of the running platform; an error is one line, and 1."""
    try:
        return act(connect(runtime_of(settings)))
    except ClientError as error:
        return failed(f"collegium {verb}", error)
