"""The verb ``policy``: which routing policies stand, which stood, and taking one back.

One rule: what is changed is told with its number, so that it can be changed again.
"""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

import msgspec

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of, settings_of
from collegium_cli.printing import failed


def run(options: argparse.Namespace) -> int:
    """Runs one action; returns the exit code."""
    try:
        if options.action != "show" and not options.tenants:
            raise ClientError(f"policy {options.action} takes a tenant")
        client = connect(runtime_of(settings_of(options.config, options.data)))
        actions = {"show": _show, "history": _history, "rollback": _change, "release": _change}
        return actions[options.action](client, options)
    except (ClientError, OSError) as error:
        return failed("collegium policy", error)


def _print(value: Any) -> int:
    print(msgspec.json.encode(value).decode())
    return 0


def _show(client: Client, options: argparse.Namespace) -> int:
    rows = client.call("GET", "/v1/admin/policies")["data"]
    rows = [row for row in rows if not options.tenants or row["tenant"] in options.tenants]
    if options.json:
        return _print(rows)
    for row in rows:
        _head(row)
        for domain, models in [("everywhere", row["everywhere"]), *row["domains"].items()]:
            for model in models:
                print(
                    f"  {domain or '(none)':<24} {model['model']:<28} {model['quality']:>6.1%} ± {model['sd']:.1%}"
                    f"  of {model['rows']}"
                )
        _compared(row)
    return 0


def _history(client: Client, options: argparse.Namespace) -> int:
    for tenant in options.tenants:
        rows = client.call("GET", f"{_path(tenant)}?limit={options.limit}")["data"]
        if options.json:
            _print(rows)
            continue
        for row in rows:
            _head(row)
            _compared(row)
    return 0


def _change(client: Client, options: argparse.Namespace) -> int:
    for tenant in options.tenants:
        if options.dry_run:
            print(f"would {options.action} the policy of {tenant}")
            continue
        body = {"version": options.version} if options.action == "rollback" else None
        row = client.call("POST", f"{_path(tenant)}/{options.action}", body)
        if options.json:
            _print(row)
        else:
            _head(row)
    return 0


def _head(row: dict[str, Any]) -> None:
    pinned = ", stays" if row["pinned"] else ""
    print(
        f"{row['tenant']} {row['version']} {row['state']}{pinned}: {row['why']}"
        f" ({row['rows']} outcomes, by {row['family']}, {row['by']}, {row['created_at']})"
    )


def _compared(row: dict[str, Any]) -> None:
    found = row["compared"]
    if found:
        told = (("snips", "snips_before"), ("robust", "robust_before"))
        figures = "; ".join(f"{one} {_figure(found[one])}, before {_figure(found[two])}" for one, two in told)
        print(f"  on {found['rows']} logged choices, {found['drawn']} drawn: {figures}")


def _figure(value: list[float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f}–{value[2]:.3f})"


def _path(tenant: str) -> str:
    return f"/v1/admin/policies/{quote(tenant, safe='')}"
