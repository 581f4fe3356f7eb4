"""The verbs of learning: ranks and draining of models, ``scoreboard``, ``gap`` and ``evolution``, as tables or JSON."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of, settings_of
from collegium_cli.printing import failed, print_json, print_table

BOARD_COLUMNS = (
    "model", "domain", "rank", "calls", "judged", "quality", "success", "refusals", "mean ms", "mean USD", "drift",
)  # fmt: skip
RANK_COLUMNS = ("at", "domain", "tenant", "before", "after", "ground", "odds", "pairs", "by", "state", "reason")
GAP_COLUMNS = ("id", "size", "accuracy", "at most", "target", "reason", "by", "USD a month", "score", "since")
GAPS_MAX = 500
ROUND_COLUMNS = ("id", "state", "cause", "queries", "started", "ended", "steps")
HEALTH_COLUMNS = ("name", "enabled", "drained", "breaker", "endpoint", "since", "ms", "context it says")
_LOOK_SECONDS = 0.5


def change(client: Client, options: argparse.Namespace) -> int:
    """Does what ``model rank``, ``model drain``, ``model resume`` and ``model health`` ask for; raises ClientError."""
    if options.action == "health":
        return _health(client, options)
    if not options.name:
        raise ClientError("give the name of a model")
    path = f"/v1/admin/models/{quote(options.name, safe='')}"
    if options.action in ("drain", "resume"):
        return _drain(client, options, path)
    place = {name: value for name in ("domain", "tenant") if (value := getattr(options, name)) is not None}
    if options.rollback or options.rank:
        body = {**place, "reason": options.reason} | ({} if options.rollback else {"rank": options.rank})
        if options.dry_run:
            return print_json({"model": options.name, "rollback": options.rollback, **body})
        changed = client.call("POST", f"{path}/rank/rollback" if options.rollback else f"{path}/rank", body)
        return print_json(changed) if options.json else print_table(RANK_COLUMNS, [_rank_row(changed)])
    query = urlencode({"model": options.name, **({"tenant": options.tenant} if options.tenant else {})})
    data = client.call("GET", f"/v1/admin/ranks?{query}")["data"]
    if options.domain is not None:
        data = [one for one in data if one["domain"] == options.domain]
    return print_json(data) if options.json else print_table(RANK_COLUMNS, [_rank_row(one) for one in data])


def scoreboard(options: argparse.Namespace) -> int:
    """Shows scores as of now."""

    def act(client: Client) -> int:
        wanted = {"tenant": options.tenant, "model": options.model, "domain": options.domain}
        wanted |= {"half_life_days": options.half_life}
        found = client.call("GET", f"/v1/admin/scoreboard?{_query(wanted)}")
        if options.json:
            return print_json(found)
        return print_table(BOARD_COLUMNS, [_board_row(one) for one in found["data"]])

    return _run("scoreboard", options, act)


def gaps(options: argparse.Namespace) -> int:
    """Lists gaps, the worst first, or shows one."""

    def act(client: Client) -> int:
        if options.action == "show":
            return _show_gap(client, options)
        query = _query({"tenant": options.tenant, "limit": options.limit})
        data = client.call("GET", f"/v1/admin/gaps?{query}")["data"]
        return print_json(data) if options.json else print_table(GAP_COLUMNS, [_gap_row(one) for one in data])

    return _run("gap", options, act)


def _show_gap(client: Client, options: argparse.Namespace) -> int:
    tenant, _, rest = options.id.partition("/")
    if not rest and options.id != "*/":
        raise ClientError("give the id of a gap; see collegium gap ls")
    query = _query({"tenant": None if tenant == "*" else tenant, "limit": GAPS_MAX})
    found = [one for one in client.call("GET", f"/v1/admin/gaps?{query}")["data"] if one["id"] == options.id]
    if not found:
        raise ClientError(f"{options.id} is no gap now")
    if options.json:
        return print_json(found[0])
    for name, value in found[0].items():
        print(f"{name}: {'-' if value is None else value}")
    return 0


def rounds(options: argparse.Namespace) -> int:
    """Lists rounds, shows one with its report, or begins one."""

    def act(client: Client) -> int:
        if options.action == "ls":
            data = client.call("GET", f"/v1/admin/evolution?limit={options.limit}")["data"]
            return print_json(data) if options.json else print_table(ROUND_COLUMNS, [_round_row(one) for one in data])
        if options.action == "show":
            return _show(client, options, options.id or _newest(client))
        if options.dry_run:
            print("would begin a round of learning")
            return 0
        begun = client.call("POST", "/v1/admin/evolution/run")
        until = time.monotonic() + options.wait
        while begun["state"] == "running" and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            begun = client.call("GET", f"/v1/admin/evolution/{begun['id']}")
        if options.wait and begun["state"] != "running":
            return _show(client, options, begun["id"])
        return print_json(begun) if options.json else print_table(ROUND_COLUMNS, [_round_row(begun)])

    return _run("evolution", options, act)


def _health(client: Client, options: argparse.Namespace) -> int:
    data = client.call("GET", "/v1/admin/models")["data"]
    found = [one for one in data if options.name in (None, one["name"])]
    shown = [
        {name: one[name] for name in ("name", "enabled", "drained", "breaker", "endpoint", "context_tokens")}
        for one in found
    ]
    if options.json:
        return print_json(shown)
    return print_table(HEALTH_COLUMNS, [_health_row(one) for one in shown])


def _health_row(one: dict[str, Any]) -> tuple[str, ...]:
    seen: dict[str, Any] = one["endpoint"] or {"state": "-", "since": "-", "duration_ms": 0, "context_tokens": None}
    said = seen["context_tokens"]
    context = "-" if said is None else f"{said}" + (" (less than configured)" if said < one["context_tokens"] else "")
    return (
        one["name"], _yes(one["enabled"]), _yes(one["drained"]), one["breaker"]["state"], seen["state"], seen["since"],
        str(seen["duration_ms"]), context,
    )  # fmt: skip


def _drain(client: Client, options: argparse.Namespace, path: str) -> int:
    if options.dry_run:
        print(f"would {options.action} {options.name}")
        return 0
    done = client.call("POST", f"{path}/{options.action}")
    if options.json:
        return print_json(done)
    gets = "no more work" if done["drained"] else "work"
    print(f"{done['model']} gets {gets}{'' if done['is_new'] else ', as before'}")
    return 0


def _show(client: Client, options: argparse.Namespace, round_id: str) -> int:
    one = client.call("GET", f"/v1/admin/evolution/{quote(round_id, safe='')}")
    if options.json:
        return print_json(one)
    print(f"{one['id']}: {one['state']}, {one['cause']}, {one['started_at']} to {one['ended_at'] or 'now'}")
    for step in one["steps"]:
        print(f"  {step['name']}: {step['state']}")
        for line in step["lines"]:
            print(f"    {line}")
    return 0


def _newest(client: Client) -> str:
    data = client.call("GET", "/v1/admin/evolution?limit=1")["data"]
    if not data:
        raise ClientError("there was no round of learning yet")
    newest: str = data[0]["id"]
    return newest


def _query(wanted: dict[str, Any]) -> str:
    return urlencode({name: value for name, value in wanted.items() if value is not None})


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _board_row(one: dict[str, Any]) -> tuple[str, ...]:
    drift = one["drift"]
    changed = "" if drift is None else f"{drift['of']} {drift['before']:.2f} -> {drift['after']:.2f} at {drift['at']}"
    return (
        one["model"], one["domain"], one["rank"], _number(one["calls"], ".0f"), _number(one["judged"], ".0f"),
        _number(one["quality"]), _number(one["success_rate"]), _number(one["refusal_rate"]),
        _number(one["duration_ms_mean"], ".0f"), one["cost_usd_mean"] or "-", changed,
    )  # fmt: skip


def _rank_row(one: dict[str, Any]) -> tuple[str, ...]:
    told = one["evidence"]
    pairs = told["wins"] + told["losses"] + told["ties"]
    domain = "*" if one["domain"] is None else one["domain"]
    return (
        one["at"], domain, one["tenant"] or "*", one["before"] or "-", one["after"] or "-", one["ground"],
        _number(told["odds"], ".3g") if told["odds"] else "-", str(pairs) if pairs else "-", one["by"], one["state"],
        one["reason"],
    )  # fmt: skip


def _gap_row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["id"], str(one["size"]), _number(one["accuracy"]), _number(one["upper"]), _number(one["target"]),
        one["reason"], f"{one['judged']} by {one['signal']}", one["value_usd_month"],
        _number(one["score"], ".3g"), one["first_at"],
    )  # fmt: skip


def _round_row(one: dict[str, Any]) -> tuple[str, ...]:
    steps = " ".join(f"{step['name']}:{step['state']}" for step in one["steps"])
    ended = one["ended_at"] or "-"
    return one["id"], one["state"], one["cause"], str(one["queries"]), one["started_at"], ended, steps


def _run(verb: str, options: argparse.Namespace, act: Callable[[Client], int]) -> int:
    try:
        return act(connect(runtime_of(settings_of(options.config, options.data))))
    except ClientError as error:
        return failed(f"collegium {verb}", error)
