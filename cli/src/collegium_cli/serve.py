"""The verbs ``serve`` and ``migrate``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import asyncpg
import msgspec
from collegium_bus.errors import BusError
from collegium_contracts.journey import SERVICES, Service
from collegium_runtime import host
from collegium_runtime.failpoints import FailpointSettingError
from collegium_runtime.runtime_file import Runtime
from collegium_servers.model_process import die_with_parent
from collegium_settings import Settings
from collegium_settings.secret import mask_text
from collegium_store import StoreError

from collegium_cli.environment import quiet_libraries, read_settings, runtime_of

HOST_ERROR = 1
_REFUSALS = (BusError, StoreError, asyncpg.PostgresError, OSError, FailpointSettingError)


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said: services, admin ports, where to report, the process to end with, and ``overrides``
    of the configuration, in the environment's words.

    Whoever asks for a report reads that; else a line on standard output says that the services are ready, and where.
    """

    services: tuple[str, ...]
    admin_ports: dict[str, int]
    report: Path | None = None
    parent: int | None = None
    as_json: bool = False
    overrides: dict[str, str] = {}
    config: Path | None = None
    data: Path | None = None


class MigrateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said; ``wait``: go on at the first line of standard input, as a supervisor asks for."""

    dry_run: bool = False
    as_json: bool = False
    wait: bool = False
    replicas: int = 1
    parent: int | None = None


def serve(settings: Settings, options: ServeOptions) -> int:
    """Runs services until a signal; returns the exit code."""
    if unknown := [name for name in options.services if name not in SERVICES]:
        print(f"collegium serve: {', '.join(unknown)}: not one of {', '.join(SERVICES)}", file=sys.stderr)
        return 2
    if unknown := [name for name in options.admin_ports if name not in options.services]:
        print(f"collegium serve: --admin-port names what is not served here: {', '.join(unknown)}", file=sys.stderr)
        return 2
    if options.parent is not None:
        die_with_parent(options.parent)
    runtime = runtime_of(settings)
    if not (settings.nats.url or runtime.nats):
        print("collegium serve: no broker: set nats.url, or start `collegium up` on this data folder", file=sys.stderr)
        return 2
    import uvloop

    services = cast("tuple[Service, ...]", options.services)

    def tell(started: host.Started) -> None:
        print(ready_line(started, as_json=options.as_json), flush=True)

    running = host.run(
        services,
        settings,
        runtime,
        admin_ports=options.admin_ports,
        report=options.report,
        configuration=_followed(options),
        on_started=tell if options.report is None else None,
    )
    try:
        uvloop.run(running)
    except _REFUSALS as error:
        print(f"collegium serve: {mask_text(str(error))}", file=sys.stderr)
        return HOST_ERROR
    return 0


def ready_line(started: host.Started, *, as_json: bool) -> str:
    """Returns the one line that says that the services have started, and where they are reached."""
    if as_json:
        shown = {"ready": True, "pid": started.pid, **started.addresses, "admin_ports": started.admin_ports}
        return msgspec.json.encode(shown).decode()
    doors = [f"{name} {address}" for name, address in started.addresses.items()]
    admin = [f"{service} {port}" for service, port in started.admin_ports.items()]
    return f"ready: {'; '.join([*doors, 'admin ports ' + ', '.join(admin)])}"


def _followed(options: ServeOptions) -> tuple[Path, Callable[[], Settings]] | None:
    if options.config is None:
        return None
    return options.config, lambda: read_settings(options.config, options.data, options.overrides)


def migrate(settings: Settings, options: MigrateOptions) -> int:
    """Applies stream declarations and database migrations; prints what was done, a line each."""
    if options.parent is not None:
        die_with_parent(options.parent)
    quiet_libraries()
    from collegium_cli.up import schema

    if options.wait and not sys.stdin.readline():
        return HOST_ERROR
    runtime = runtime_of(settings)
    if missing := _missing(settings, runtime):
        print(f"collegium migrate: set {missing}, or start `collegium up` on this data folder", file=sys.stderr)
        return 2

    async def run() -> list[str]:
        done = await schema.apply_topology(settings, runtime, replicas=options.replicas, dry_run=options.dry_run)
        return done + await schema.apply_schemas(settings.database.url or runtime.database, dry_run=options.dry_run)

    try:
        done = asyncio.run(run())
    except _REFUSALS as error:
        print(f"collegium migrate: {mask_text(str(error))}", file=sys.stderr)
        return HOST_ERROR
    if options.as_json:
        print(msgspec.json.encode({"done": done, "dry_run": options.dry_run}).decode())
    else:
        print("\n".join(done) if done else "nothing to do")
    return 0


def _missing(settings: Settings, runtime: Runtime) -> str:
    addresses = {
        "nats.url": settings.nats.url or runtime.nats,
        "database.url": settings.database.url or runtime.database,
    }
    return " and ".join(name for name, address in addresses.items() if not address)
