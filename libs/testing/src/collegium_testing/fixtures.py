"""Pytest fixtures that give tests a real broker and a real database.

Here lives where they come from: an address from the environment, else the bundled programs, else containers where a
Docker engine answers, else a failure that names every reason. Not here: the model simulator and other doubles.
One rule: a test that needs a server never passes, and is never skipped, without one.

Each worker process has one server of a kind, started at the first use in a thread with an event loop of its own, so
that it outlives the loops of single tests. Servers named by the environment are taken to be there for tests alone:
``clean_nats_url`` deletes all of their streams.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from collegium_servers import MissingServerError, nats, postgres

T = TypeVar("T")
Migrations = Callable[[str], Awaitable[None]]
Source = Callable[[Path, "Background"], Generator[str]]

NATS_VARIABLE = "COLLEGIUM_TEST_NATS_URL"
DATABASE_VARIABLE = "COLLEGIUM_TEST_DATABASE_URL"
SEED_VARIABLE = "COLLEGIUM_TEST_SEED"
NATS_IMAGE = "nats:2.15.1"
POSTGRES_IMAGE = "postgres:18"
_CALL_SECONDS = 100.0  # under the suite's own limit for one test, so that the reason is seen


class Background:
    """An event loop in a thread of its own; ``run`` waits for a coroutine there from synchronous code."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-servers", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns what the coroutine returns, or raises what it raises."""
        pending: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return pending.result(_CALL_SECONDS)

    def close(self) -> None:
        """Ends the loop and its thread."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Databases:
    """Makes and drops databases on one server; migrated ones are copied from a template that is made once."""

    def __init__(self, server_url: str, background: Background) -> None:
        self._server_url = server_url
        self._background = background
        self._templates: dict[Migrations, str] = {}

    def create(self, migrations: Migrations | None = None) -> str:
        """Returns the URL of a new database, empty or with the migrations applied."""
        template = "template1" if migrations is None else self._template(migrations)
        return self._create(f"test_{uuid4().hex}", template)

    def drop(self, url: str) -> None:
        """Drops a database, whoever is still connected to it."""
        self._background.run(_drop(self._server_url, urlsplit(url).path[1:]))

    def close(self) -> None:
        """Drops the templates."""
        for name in self._templates.values():
            self.drop(_with_database(self._server_url, name))

    def _template(self, migrations: Migrations) -> str:
        if migrations not in self._templates:
            name = f"template_{uuid4().hex}"
            url = self._create(name, "template1")
            self._background.run(_awaited(migrations(url)))
            self._templates[migrations] = name
        return self._templates[migrations]

    def _create(self, name: str, template: str) -> str:
        self._background.run(_execute(self._server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
        return _with_database(self._server_url, name)


@pytest.fixture(scope="session")
def server_background() -> Iterator[Background]:
    """Gives the event loop that owns the servers of this worker process."""
    background = Background()
    yield background
    background.close()


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory, server_background: Background) -> Iterator[str]:
    """Gives the address of a NATS server with JetStream, shared by the tests of this worker process."""
    with _first_of(NATS_VARIABLE, _bundled_nats, _nats_container, tmp_path_factory, server_background) as url:
        yield url


@pytest.fixture
def clean_nats_url(nats_url: str, server_background: Background) -> str:
    """Gives the shared server's address after deleting every stream of its account (buckets are streams too)."""
    server_background.run(_delete_streams(nats_url))
    return nats_url


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory, server_background: Background) -> Iterator[str]:
    """Gives the address of a PostgreSQL server whose role may make databases, shared by this worker process."""
    with _first_of(
        DATABASE_VARIABLE, _bundled_postgres, _postgres_container, tmp_path_factory, server_background
    ) as url:
        yield url


@pytest.fixture(scope="session")
def databases(postgres_url: str, server_background: Background) -> Iterator[Databases]:
    """Gives the maker of databases, for tests and fixtures that want them for longer than one test."""
    databases = Databases(postgres_url, server_background)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def database_migrations() -> Migrations | None:
    """Gives what is applied once to the template of ``database_url``; a package overrides it with its migrations."""
    return None


@pytest.fixture
def database_url(databases: Databases, database_migrations: Migrations | None) -> Iterator[str]:
    """Gives the address of a database of the test's own, dropped after it."""
    url = databases.create(database_migrations)
    yield url
    databases.drop(url)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Gives randomness that is the same in every run of the same test, until COLLEGIUM_TEST_SEED changes."""
    return random.Random(f"{_seed()}:{request.node.nodeid}")  # noqa: S311 - tests, not secrets


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(_seed())


def _seed() -> str:
    return os.environ.get(SEED_VARIABLE, "collegium")


@contextmanager
def _first_of(
    variable: str,
    bundled: Source,
    container: Source,
    folders: pytest.TempPathFactory,
    background: Background,
) -> Generator[str]:
    """Yields the address from the first source that has one; fails the test with every source's reason."""
    if given := os.environ.get(variable):
        yield given
        return
    reasons = [f"{variable} is not set"]
    with ExitStack() as stack:
        for source in (bundled, container):
            try:
                url = stack.enter_context(contextmanager(source)(folders.mktemp("server"), background))
            except (MissingServerError, NoEngineError) as error:
                reasons.append(str(error))
            else:
                yield url
                return
    pytest.fail("no server for this test: " + "; ".join(reasons), pytrace=False)


class NoEngineError(Exception):
    """No Docker engine answers, or its client is not installed."""


def _bundled_nats(folder: Path, background: Background) -> Generator[str]:
    server = background.run(nats.start(folder))
    yield server.url
    background.run(server.stop())


def _bundled_postgres(folder: Path, background: Background) -> Generator[str]:
    server = background.run(postgres.start(folder))
    yield server.url
    background.run(server.stop())


def _nats_container(_folder: Path, _background: Background) -> Generator[str]:
    _require_engine()
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where nothing is bundled
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    container = DockerContainer(NATS_IMAGE).with_command("-js").with_exposed_ports(4222)
    with container.waiting_for(LogMessageWaitStrategy("Server is ready")) as server:
        yield f"nats://{server.get_container_host_ip()}:{server.get_exposed_port(4222)}"


def _postgres_container(_folder: Path, _background: Background) -> Generator[str]:
    _require_engine()
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - only where nothing is bundled

    with PostgresContainer(POSTGRES_IMAGE, driver=None) as server:
        yield server.get_connection_url()


def _require_engine() -> None:
    try:
        docker: Any = importlib.import_module("docker")
    except ImportError as error:
        raise NoEngineError("the Docker client (package testcontainers) is not installed") from error
    try:
        client = docker.from_env()
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        raise NoEngineError(f"no Docker engine answers ({error})") from error


def _with_database(server_url: str, name: str) -> str:
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _drop(server_url: str, name: str) -> None:
    """Drops a database; waits for a vacuum that the server itself runs in it, which nobody but it may end."""
    asyncpg: Any = importlib.import_module("asyncpg")  # tests without a database need not wait for it
    deadline = time.monotonic() + _CALL_SECONDS / 2
    while True:
        try:
            await _execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')
        except asyncpg.InsufficientPrivilegeError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def _execute(url: str, statement: str) -> None:
    asyncpg: Any = importlib.import_module("asyncpg")  # tests without a database need not wait for it
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _delete_streams(url: str) -> None:
    nats_client: Any = importlib.import_module("nats")  # tests without a broker need not wait for it
    client = await nats_client.connect(url)
    try:
        stream = client.jetstream()
        for info in await stream.streams_info():
            # Purged first: a stream that is made again at once was seen with the last message of the deleted one.
            await stream.purge_stream(info.config.name)
            await stream.delete_stream(info.config.name)
    finally:
        await client.close()
