"""The verb ``up``: settings, the supervisor, the ready line, signals."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import msgspec
from collegium_runtime.runtime_file import Runtime
from collegium_servers.errors import ServerError
from collegium_settings import Settings
from collegium_telemetry.logs import configure_logging

from collegium_cli.printing import failed
from collegium_cli.up.layout import Group, free_port, groups
from collegium_cli.up.supervisor import GaveUpError, Supervisor


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said."""

    config: Path | None = None
    only: tuple[str, ...] | None = None
    as_json: bool = False


def with_ports(settings: Settings) -> Settings:
    """Returns the settings with free ports in the place of port 0."""
    http, grpc = settings.http, settings.grpc
    if http.port == 0:
        http = msgspec.structs.replace(http, port=free_port(http.host))
    if grpc.port == 0:
        grpc = msgspec.structs.replace(grpc, port=free_port(grpc.host))
    return msgspec.structs.replace(settings, http=http, grpc=grpc)


def run(settings: Settings, options: UpOptions) -> int:
    """Runs a platform until a signal; returns the exit code."""
    configure_logging("up")
    try:
        chosen = groups(options.only)
    except KeyError as error:
        print(f"collegium up: --only names unknown services: {error.args[0]}", file=sys.stderr)
        return 2
    return asyncio.run(_run(with_ports(settings), options, chosen))


async def _run(settings: Settings, options: UpOptions, chosen: list[Group]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ending_signals():
        loop.add_signal_handler(number, stopping.set)
    supervisor = Supervisor(settings, options.config, chosen)
    began = time.monotonic()
    starting = asyncio.create_task(supervisor.start())
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        runtime = starting.result()
        print(ready_line(runtime, time.monotonic() - began, as_json=options.as_json), flush=True)
        await asyncio.wait({waiting, supervisor.failed}, return_when=asyncio.FIRST_COMPLETED)
        if supervisor.failed.done():
            supervisor.failed.result()
    except (ServerError, GaveUpError, OSError) as error:
        return failed("collegium up", error)
    finally:
        waiting.cancel()
        await supervisor.stop()
    return 0


def ending_signals() -> list[signal.Signals]:
    """Returns the signals that end a platform: a closed terminal is one, unless started with nohup."""
    found = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


def ready_line(runtime: Runtime, seconds: float, *, as_json: bool) -> str:
    """Returns the one line that says that everything is ready, and where."""
    if as_json:
        shown = {
            "ready": True,
            "http": runtime.http,
            "grpc": runtime.grpc,
            "nats": runtime.nats,
            "database": runtime.database,
            "admin_key_file": runtime.admin_key_file,
            "pids": runtime.pids,
            "seconds": round(seconds, 2),
        }
        return msgspec.json.encode(shown).decode()
    return f"ready in {seconds:.1f} s: {runtime.http}/v1 (key in {runtime.admin_key_file}), gRPC {runtime.grpc}"
