"""Applying declarations: streams and consumers on the broker, schemas in the database.

One rule: services find what they need or refuse to start; only ``up`` and ``migrate`` change it.
"""

from __future__ import annotations

import importlib
from typing import Any

from collegium_bus import topology
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings
from collegium_settings.pools import all_pools
from collegium_store import Migrations, is_current, migrate

from collegium_cli.tasks.operator import operator

_OWNERS = ("billing", "context", "evolution", "gateway")


def pools(settings: Settings) -> list[str]:
    """Returns the worker pools that there are."""
    return all_pools(settings)


def all_migrations() -> list[Migrations]:
    """Returns the migrations of every service that owns tables, and the archive's."""
    found: list[Any] = [importlib.import_module("collegium_store.archive").ARCHIVE_MIGRATIONS]
    for owner in _OWNERS:
        found.append(importlib.import_module(f"collegium_{owner}.migrations").MIGRATIONS)
    return found


async def apply_topology(
    settings: Settings, runtime: Runtime, *, replicas: int = 1, dry_run: bool = False
) -> list[str]:
    """Declares streams, consumers and buckets; returns what was (or would be) done, a line each."""
    async with operator(settings, runtime) as connection:
        changes = await topology.plan(connection, pools=pools(settings), replicas=replicas)
        if not dry_run:
            await topology.apply(connection, changes)
    return [f"{change.action} {change.kind} {change.name} {' '.join(change.differs)}".rstrip() for change in changes]


async def apply_schemas(database_url: str, *, dry_run: bool = False) -> list[str]:
    """Migrates every schema; returns what was (or would be) applied, a line each."""
    if dry_run:
        behind = [one.schema for one in all_migrations() if not await is_current(database_url, [one])]
        return [f"migrate {schema}" for schema in behind]
    applied = await migrate(database_url, all_migrations())
    return [f"migrate {one.schema} {one.revision}" for one in applied]
