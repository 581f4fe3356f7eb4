"""The verbs ``model add``, ``set``, ``show`` and ``remove``: models that come and go while the platform runs.

One rule: no key is taken here; a model names one that stands in the workers' configuration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from collegium_settings.yaml_file import YamlError, parse

from collegium_cli.client import Client, ClientError
from collegium_cli.learning.roster_arguments import LISTS
from collegium_cli.printing import print_json, print_table

PROBE_COLUMNS = ("probe", "endpoint", "state", "needed", "ms", "detail")
_TEXTS = ("base_url", "key", "upstream_model", "pool")
_NUMBERS = ("context_tokens", "max_output_tokens")
_PRICES = ("input", "cached_input", "cache_write", "output", "reasoning")


def change_roster(client: Client, options: argparse.Namespace) -> int:
    """Adds, changes, shows or removes one model; raises ClientError."""
    if not options.name:
        raise ClientError("give the name of a model")
    acts: dict[str, Callable[[Client, argparse.Namespace, str], int]] = {
        "add": _add, "set": _set, "show": _show, "remove": _remove,
    }  # fmt: skip
    return acts[options.action](client, options, f"/v1/admin/models/{quote(options.name, safe='')}")


def spec_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the options say of a model; raises ClientError."""
    found: dict[str, Any] = _file(options.spec) if options.spec is not None else {}
    found |= {name: getattr(options, name) for name in (*_TEXTS, *_NUMBERS) if getattr(options, name) is not None}
    found |= {name: _split(getattr(options, name)) for name in LISTS if getattr(options, name) is not None}
    if options.domain is not None and "domains" not in found:
        found["domains"] = [options.domain]
    if options.endpoint is not None:
        found["endpoints"] = [{"base_url": url} | _key(found) for url in options.endpoint]
    if options.label is not None:
        found["labels"] = dict(_pair(text) for text in options.label)
    if options.rank is not None:
        found["rank"] = options.rank
    for field, prefix in (("price", ""), ("charge", "charge_")):
        named = {f"{name}_usd_per_mtok": getattr(options, f"{prefix}{name}") for name in _PRICES}
        given = {name: usd for name, usd in {**named, "call_usd": getattr(options, f"{prefix}call")}.items() if usd}
        if given:
            found[field] = given
    if options.charge_markup is not None:
        found["charge"] = {"markup": options.charge_markup}
    return found


def _add(client: Client, options: argparse.Namespace, _path: str) -> int:
    body = {"name": options.name, **spec_of(options), **({"force": True} if options.force else {})}
    if options.dry_run:
        return print_json(body)
    return _told(client.call("POST", "/v1/admin/models", body), options, "added")


def _set(client: Client, options: argparse.Namespace, path: str) -> int:
    body = {**spec_of(options), **({"force": True} if options.force else {})}
    if options.dry_run:
        return print_json({"name": options.name, **body})
    return _told(client.call("PATCH", path, body), options, "changed")


def _show(client: Client, options: argparse.Namespace, path: str) -> int:
    shown = client.call("GET", path)
    if options.json:
        return print_json(shown)
    endpoint = shown.get("endpoint") or {}
    about = {
        "rank": shown["rank"],
        "enabled": shown["enabled"],
        "drained": shown["drained"],
        "pool": shown["pool"],
        "breaker": shown["breaker"]["state"],
        "endpoint": ", ".join(endpoint.get("endpoints") or ()) or endpoint.get("state", "not looked at yet"),
        "of": "an operator" if shown["added"] else "the configuration",
    } | {name: _plain(value) for name, value in shown.get("spec", {}).items() if name not in ("name", "rank", "pool")}
    print_table(("what", "is"), [(name, str(value)) for name, value in about.items()])
    return _probes(shown)


def _remove(client: Client, options: argparse.Namespace, path: str) -> int:
    if options.dry_run:
        return print_json({"name": options.name, "removed": False})
    gone = client.call("DELETE", path)
    if options.json:
        return print_json(gone)
    print(f"{gone['name']}: removed")
    return 0


def _told(made: dict[str, Any], options: argparse.Namespace, verb: str) -> int:
    if options.json:
        return print_json(made)
    forced = ", by force" if made["forced"] else ""
    print(f"{made['name']}: {verb}{forced} as {made['rank']}; the probes cost {made['probe_cost_usd']} USD")
    return _probes(made)


def _probes(shown: dict[str, Any]) -> int:
    rows = [
        (one["name"], str(one["endpoint"]), one["state"], "yes" if one["needed"] else "no", str(one["duration_ms"]),
         one["detail"] or "")
        for one in shown.get("probes", ())
    ]  # fmt: skip
    return print_table(PROBE_COLUMNS, rows) if rows else 0


def _file(path: Path) -> dict[str, Any]:
    try:
        read = parse(path.read_bytes())
    except (OSError, YamlError) as error:
        raise ClientError(f"{path} cannot be read: {error}") from None
    if not isinstance(read, dict):
        raise ClientError(f"{path} holds no mapping")
    return dict(read)


def _key(found: dict[str, Any]) -> dict[str, Any]:
    return {"key": found["key"]} if found.get("key") else {}


def _split(text: str) -> list[str]:
    return [one for one in text.split(",") if one]


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ClientError(f"a label is NAME=VALUE, not {text!r}")
    return name, value


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(one)}" for name, one in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
