"""Starting, watching and ending one child process that serves a data folder.

Here lives what the three servers share: the lock on the folder, the log file, waiting for readiness, ending
gracefully, and ending what a crash left behind. Not here: what a server is told, or when it counts as ready.
One rule: whoever starts a server holds the folder's lock until the server has ended.

After a crash of the parent the kernel frees the lock while the servers run on. The next start takes the lock, finds
the survivor by its saved identity, ends it, and starts anew on the same data.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collegium_servers.errors import FolderInUseError, MissingServerError, StartError
from collegium_servers.identity import Identity, boot_id, gone, load, start_ticks

LOG_MAX_BYTES = 16 * 1024 * 1024  # kept once over: a server that complains all day must not fill a laptop's disk
LAST_LINES = 20
_POLL_FIRST_SECONDS = 0.005
_POLL_MAX_SECONDS = 0.1
_KILL_WAIT_SECONDS = 10.0

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: ``mark`` is an argument that no other process has, ``environment`` is added to the parent's."""

    name: str
    arguments: Sequence[str]
    mark: str
    stop_signal: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Claim:
    """The lock on one server's part of a data folder, held until ``release`` or the end of this process."""

    name: str
    data_dir: Path
    _descriptor: int

    @property
    def pid_file(self) -> Path:
        """Returns where the serving process's identity is kept."""
        return self.data_dir / "run" / f"{self.name}.json"

    @property
    def log_file(self) -> Path:
        """Returns where the server's output goes."""
        return self.data_dir / "logs" / f"{self.name}.log"

    def release(self) -> None:
        """Gives the folder free; doing it twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def claim(data_dir: Path, name: str) -> Claim:
    """Takes the lock on a server's part of a data folder, or raises FolderInUseError at once."""
    data_dir = data_dir.resolve()
    for folder in ("run", "logs"):
        (data_dir / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(data_dir / "run" / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        text = f"{data_dir} is in use: another running process serves {name} from it; stop it, or use another folder"
        raise FolderInUseError(text) from None
    return Claim(name, data_dir, descriptor)


class Child:
    """A running server process; ``stop`` ends it and gives its folder free."""

    def __init__(self, command: Command, process: subprocess.Popen[bytes], held: Claim) -> None:
        self._command = command
        self._process = process
        self._claim = held

    @property
    def pid(self) -> int:
        """Returns the process's id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tells whether the process has not ended yet."""
        return self._process.poll() is None

    async def wait(self) -> int:
        """Waits for the end of the process; returns its exit code, negative for a signal."""
        await gone(self.pid, None)
        return self._process.wait()

    async def stop(self, grace_seconds: float = 10.0) -> int:
        """Asks the process to end, kills it after ``grace_seconds``, returns its exit code; repeatable."""
        if self.running:
            self._process.send_signal(self._command.stop_signal)
            if not await gone(self.pid, grace_seconds):
                self._process.kill()
        code = await self.wait()
        self._claim.pid_file.unlink(missing_ok=True)
        self._claim.release()
        return code


async def start_child(command: Command, held: Claim, ready: Callable[[int], Probe], deadline_seconds: float) -> Child:
    """Starts a process and waits until its probe (made from its pid) says yes.

    Raises StartError with the last log lines when the process ends first or the deadline passes; the process is
    then gone and the claim released.
    """
    _bound_log(held.log_file)
    offset = held.log_file.stat().st_size if held.log_file.exists() else 0
    child = Child(command, _spawn(command, held), held)
    try:
        # The saved identity needs no lock of its own: only the holder of the claim writes it.
        Identity(child.pid, start_ticks(child.pid) or 0, boot_id(), command.mark).save(held.pid_file)
        reason = await _await_ready(child, ready(child.pid), deadline_seconds)
    except BaseException:
        await child.stop(0)
        raise
    if reason is not None:
        await child.stop(0)
        raise StartError(command.name, reason, last_lines(held.log_file, offset))
    return child


async def end_leftover(held: Claim, stop_signal: signal.Signals = signal.SIGTERM, grace_seconds: float = 10.0) -> bool:
    """Ends the process that an earlier crash left on the claimed folder; True where there was one."""
    identity = load(held.pid_file)
    found = identity is not None and identity.alive()
    if identity is not None and found:
        for number, patience_seconds in ((stop_signal, grace_seconds), (signal.SIGKILL, _KILL_WAIT_SECONDS)):
            if not identity.send(number) or await gone(identity.pid, patience_seconds):
                break
        if identity.alive():
            raise StartError(held.name, f"cannot start: process {identity.pid} on its folder does not end")
    held.pid_file.unlink(missing_ok=True)
    return found


def last_lines(log_file: Path, offset: int = 0) -> tuple[str, ...]:
    """Returns the last lines that a server printed after ``offset`` bytes of its log."""
    if not log_file.exists():
        return ()
    with log_file.open("rb") as log:
        log.seek(offset)
        return tuple(log.read().decode(errors="replace").splitlines()[-LAST_LINES:])


def _spawn(command: Command, held: Claim) -> subprocess.Popen[bytes]:
    with held.log_file.open("ab") as log:
        try:
            return subprocess.Popen(  # noqa: S603 - arguments are made here, without a shell
                list(command.arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=held.data_dir,
                env={**os.environ, **command.environment},
                # Ctrl-C in the terminal must reach the parent alone, which then ends its servers in order.
                start_new_session=True,
            )
        except OSError as error:
            held.release()
            raise MissingServerError(f"cannot run {command.arguments[0]} for {command.name}: {error}") from error


async def _await_ready(child: Child, probe: Probe, deadline_seconds: float) -> str | None:
    """Returns None once the probe says yes, else why it did not."""
    pause_seconds = _POLL_FIRST_SECONDS
    try:
        async with asyncio.timeout(deadline_seconds):
            while child.running:
                try:
                    if await probe():
                        return None
                except OSError:
                    pass  # nobody listens yet
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 1.5, _POLL_MAX_SECONDS)
    except TimeoutError:
        return f"was not ready within {deadline_seconds:g} s"
    return f"ended with code {await child.wait()} before it was ready"


def _bound_log(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > LOG_MAX_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
