"""The verbs ``serve`` and ``migrate``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts.journey import SERVICES, Service
from collegium_runtime import host
from collegium_settings import Settings

from collegium_cli.environment import runtime_of

HOST_ERROR = 1


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said: services, admin ports, where to report, and the process to end with."""

    services: tuple[str, ...]
    admin_ports: dict[str, int]
    report: Path | None = None
    parent: int | None = None


def serve(settings: Settings, options: ServeOptions) -> int:
    """Runs services until a signal; returns the exit code."""
    if unknown := [name for name in options.services if name not in SERVICES]:
        print(f"collegium serve: {', '.join(unknown)}: not one of {', '.join(SERVICES)}", file=sys.stderr)
        return 2
    if options.parent is not None:
        from collegium_servers.model_process import die_with_parent

        die_with_parent(options.parent)
    runtime = runtime_of(settings)
    if not (settings.nats.url or runtime.nats):
        print("collegium serve: no broker: set nats.url, or start `collegium up` on this data folder", file=sys.stderr)
        return 2
    import uvloop

    services = cast("tuple[Service, ...]", options.services)
    try:
        uvloop.run(host.run(services, settings, runtime, admin_ports=options.admin_ports, report=options.report))
    except (BusError, OSError) as error:
        print(f"collegium serve: {error}", file=sys.stderr)
        return HOST_ERROR
    return 0


def migrate(settings: Settings, *, dry_run: bool, as_json: bool) -> int:
    """Applies stream declarations and database migrations; prints what was done, a line each."""
    from collegium_cli.up import schema

    runtime = runtime_of(settings)
    database = settings.database.url or runtime.database

    async def run() -> list[str]:
        done = await schema.apply_topology(settings, runtime, dry_run=dry_run)
        if not dry_run:
            done += await schema.apply_schemas(database)
        return done

    try:
        done = asyncio.run(run())
    except (BusError, OSError) as error:
        print(f"collegium migrate: {error}", file=sys.stderr)
        return HOST_ERROR
    if as_json:
        print(msgspec.json.encode({"done": done, "dry_run": dry_run}).decode())
    else:
        print("\n".join(done) if done else "nothing to do")
    return 0
