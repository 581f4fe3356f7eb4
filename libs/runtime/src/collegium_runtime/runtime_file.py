"""``runtime.json``: what a running ``up`` wrote down, so that other processes can join it.

Mode 0600, replaced atomically. One rule: it holds addresses and paths of secrets, and the database's address (which
carries its password), and is readable by its owner alone.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

FILE_NAME = "runtime.json"


class EmbeddedModel(msgspec.Struct, frozen=True):
    """The bundled model as it is served: its roster name and its OpenAI-compatible base URL."""

    name: str
    base_url: str


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of a running platform. ``credentials`` maps a broker user to the file with its NKey seed."""

    http: str = ""
    grpc: str = ""
    nats: str = ""
    nats_monitor: str = ""
    database: str = ""
    admin_key_file: str = ""
    credentials: dict[str, str] = {}
    pids: dict[str, int] = {}
    admin_ports: dict[str, int] = {}
    embedded_model: EmbeddedModel | None = None


def write(data_dir: Path, runtime: Runtime) -> Path:
    """Writes the file atomically with mode 0600 and returns its path."""
    path = data_dir / FILE_NAME
    draft = data_dir / f".{FILE_NAME}.new"
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(runtime), indent=2))
    draft.replace(path)
    return path


def read(data_dir: Path) -> Runtime | None:
    """Reads the file; none where no platform wrote one, or where it is not one of ours."""
    try:
        return msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=Runtime)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
