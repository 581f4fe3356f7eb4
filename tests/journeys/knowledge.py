"""The configuration of ``knowing``: what is remembered, searched and kept; each journey has tenants of its own.

One rule: who changes what all tenants share here puts it back.
"""

from __future__ import annotations

from typing import Any

from collegium_testing.platforms import configuration, make_key

UPLOAD_BYTES_MAX = 16_000_000
_SCOPES = ["chat", "tasks", "usage", "knowledge"]
_KEPT_ALIKE = {
    **{"acme": True, "globex": True},  # walk, memory's reach
    **{"likes": True, "asks": False, "plain": False},  # likeness
    **{"searches": False, "broke": False},  # steps of search
}
KEYS = {tenant: make_key(tenant) for tenant in _KEPT_ALIKE}
KEYS |= {f"{tenant}-admin": make_key(f"{tenant}admin") for tenant in _KEPT_ALIKE}
KEYS |= {name: make_key(name) for name in ("red", "blue", "chief")}


def knowing_of(base_url: str) -> dict[str, Any]:
    """Returns the configuration, with the model at an address."""
    config = configuration(
        base_url,
        tenants={tenant: KEYS[tenant] for tenant in _KEPT_ALIKE},
        cache={"semantic": True},
        search={"rewrite_seconds": 4},
        http={"port": 0, "max_body_bytes": "1MB", "max_upload_bytes": UPLOAD_BYTES_MAX},
    )
    tenants: dict[str, dict[str, Any]] = {tenant["id"]: tenant for tenant in config["tenants"]}
    for name, tenant in tenants.items():
        tenant["keys"] = [{"api_key": KEYS[f"{name}-admin"], "scopes": ["admin"]}]
        if not _KEPT_ALIKE[name]:
            tenant["cache"] = {"semantic": False}
    tenants["broke"]["budget"] = {"usd": "0.000001"}
    tenants["acme"]["projects"] = [{"id": "red"}, {"id": "blue"}]
    tenants["acme"]["keys"] += [
        {"api_key": KEYS["red"], "project": "red", "scopes": _SCOPES},
        {"api_key": KEYS["blue"], "project": "blue", "scopes": _SCOPES},
        {"api_key": KEYS["chief"], "project": "blue", "scopes": [*_SCOPES, "admin"]},
    ]
    return config
