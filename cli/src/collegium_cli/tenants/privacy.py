"""Tenants' privacy: data keys, the envelope key, erasure. The admin API as lines or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from collegium_settings import Settings

from collegium_cli.client import Client, ClientError, connect
from collegium_cli.environment import runtime_of
from collegium_cli.printing import failed

TENANT_ACTIONS = ("erase", "erasure", "data-keys", "rotate-data-key")


def tenant(settings: Settings, options: argparse.Namespace) -> int:
    """Erases a tenant, shows how far that is, lists or rotates its data keys."""

    def act(client: Client) -> int:
        if not options.id:
            raise ClientError("give the tenant's id")
        path = f"/v1/admin/tenants/{quote(options.id, safe='')}"
        if options.action == "erase":
            if not options.dry_run and options.confirm != options.id:
                raise ClientError(f"nothing brings a tenant's data back: give --confirm {options.id}")
            body = {"confirm": options.confirm or "", "dry_run": options.dry_run}
            return _erasure(client.call("POST", f"{path}/erasure", body), options)
        if options.action == "erasure":
            return _erasure(client.call("GET", f"{path}/erasure"), options)
        if options.action == "data-keys":
            return _keys(client.call("GET", f"{path}/data-keys"), options)
        return _keys(client.call("POST", f"{path}/data-keys/rotate"), options)

    return _run(settings, "tenant", act)


def encryption(settings: Settings, options: argparse.Namespace) -> int:
    """Shows under which envelope keys the data keys stand, or wraps all under the newest."""

    def act(client: Client) -> int:
        if options.action == "rewrap":
            state = client.call("POST", "/v1/admin/encryption/rewrap", {"dry_run": options.dry_run})
        else:
            state = client.call("GET", "/v1/admin/encryption")
        if options.json:
            return _json(state)
        if "rewrapped" in state:
            print(f"{state['rewrapped']} data keys {'would be' if state['dry_run'] else 'were'} wrapped anew")
        for key_id, count in sorted(state["wrapped_by"].items()):
            mark = " (the newest)" if key_id == state["envelope_key"] else ""
            print(f"{key_id}{mark}: {count} data keys")
        return 0

    return _run(settings, "encryption", act)


def _erasure(view: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        return _json(view)
    if view.get("dry_run"):
        print(f"tenant {view['tenant']} would be erased with {view['data_keys']} data keys")
        return 0
    print(f"tenant {view['tenant']} {view['state']}, asked for at {view['requested_at']} by {view['requested_by']}")
    for part, at in view["done"].items():
        print(f"  {part}: {at}, {view['removed'].get(part, 0)} removed")
    for part in view["left"]:
        print(f"  {part}: left")
    return 0


def _keys(view: dict[str, Any], options: argparse.Namespace) -> int:
    if options.json:
        return _json(view)
    if view["erased_at"]:
        print(f"destroyed at {view['erased_at']}")
    for key in view["keys"]:
        print(f"{key['id']}  made {key['created_at']}  wrapped by {key['wrapped_by']}")
    return 0


def _json(body: Any) -> int:
    print(msgspec.json.encode(body).decode())
    return 0


def _run(settings: Settings, verb: str, act: Callable[[Client], int]) -> int:
    try:
        return act(connect(runtime_of(settings)))
    except ClientError as error:
        return failed(f"collegium {verb}", error)
