"""Running services in a process: build, start, report, wait for a signal, drain.

Several services may share a process; each has its own broker connection and credentials, so a hop between two of them
is the same message it would be between machines. One rule: a service that cannot start ends the process with its
reason, and a supervisor decides.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection, connect
from collegium_bus.dead import DeadLetters
from collegium_bus.direct import DirectReader
from collegium_bus.publisher import Publisher
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.journey import Service
from collegium_contracts.permissions import inbox_prefix
from collegium_settings import Settings
from collegium_settings.settings import TlsSettings
from collegium_telemetry import names
from collegium_telemetry.logs import bind_service, configure_logging
from collegium_telemetry.metrics import Metrics
from collegium_telemetry.tracing import Tracing, setup

from collegium_runtime import failpoints, profiling
from collegium_runtime.admin import AdminServer
from collegium_runtime.datakeys import DataKeys, reads_data_keys, writes_data_keys
from collegium_runtime.loop_watch import LoopWatch
from collegium_runtime.platform import App, Build, Door, Platform, clock_from
from collegium_runtime.reloading import Reloading
from collegium_runtime.runtime_file import Runtime

log = structlog.get_logger(__name__)

# Objects made and not yet freed before the young are looked at (Python's own: 700), and rounds before the older are.
COLLECTOR_THRESHOLDS = (10_000, 20, 20)
DRAIN_SECONDS = 15.0
# Set by a supervisor that starts a replica again under the same name, so that it takes its leases back at once.
INSTANCE_VARIABLE = "COLLEGIUM_INSTANCE"


class Hosted(msgspec.Struct, frozen=True, kw_only=True):
    """One started service and what it runs on."""

    platform: Platform
    app: App
    admin: AdminServer


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in this process and where: admin ports by service, addresses by door (``http``, ``grpc``)."""

    pid: int
    admin_ports: dict[str, int]
    addresses: dict[str, str]


def _started(hosted: Sequence[Hosted]) -> Started:
    addresses: dict[str, str] = {}
    for one in hosted:
        if isinstance(one.app, Door):
            addresses.update(one.app.addresses())
    ports = {one.platform.service: one.admin.port for one in hosted}
    return Started(pid=os.getpid(), admin_ports=ports, addresses=addresses)


async def start_service(service: Service, settings: Settings, runtime: Runtime, *, admin_port: int = 0) -> Hosted:
    """Connects, builds and starts one service, and opens its admin port; what was opened is closed where one fails."""
    module = importlib.import_module(f"collegium_{service.replace('-', '_')}.app")
    build: Build = module.build
    bind_service(service)
    async with AsyncExitStack() as opened:
        connection = await connect_as(service, settings, runtime)
        opened.push_async_callback(connection.close)
        tracing = setup(
            service, otlp_endpoint=settings.telemetry.otlp_endpoint, sample_ratio=settings.telemetry.sample_ratio
        )
        opened.push_async_callback(tracing.aclose)
        metrics = Metrics(service)
        platform = make_platform(service, settings, runtime, connection, tracing, metrics)
        if platform.data_keys is not None:
            await platform.data_keys.start()
            opened.push_async_callback(platform.data_keys.stop)
        app = build(platform)
        await app.start()

        def readiness() -> dict[str, bool]:
            return {"broker": connection.is_connected, **app.readiness()}

        admin = AdminServer(service, readiness, metrics)
        await admin.start(settings.http.host, admin_port)
        opened.pop_all()
    return Hosted(platform=platform, app=app, admin=admin)


def make_platform(
    service: Service, settings: Settings, runtime: Runtime, connection: Connection, tracing: Tracing, metrics: Metrics
) -> Platform:
    """Puts together what a service is given."""
    publisher = Publisher(connection)
    letters = DeadLetters(publisher, service)
    metrics.watch_gauge(names.METRIC_LETTERS_BURIED, lambda: letters.buried, "Messages dead-lettered since the start")
    metrics.watch_gauge(names.METRIC_LETTERS_KEPT, lambda: letters.kept, "Inputs of failed tasks kept since the start")
    metrics.watch_gauge(names.METRIC_LETTERS_LOST, lambda: letters.lost, "Inputs of failed tasks that found no room")
    now_ms = clock_from(os.environ)
    data_dir = Path(settings.data_dir)
    data_keys = None
    if reads_data_keys(service):
        data_keys = DataKeys(connection, data_dir, settings.encryption, now_ms, may_write=writes_data_keys(service))
    return Platform(
        service=service,
        instance=os.environ.get(INSTANCE_VARIABLE) or connection.instance,
        settings=settings,
        data_dir=data_dir,
        database_url=settings.database.url or runtime.database,
        embedded_model=runtime.embedded_model,
        connection=connection,
        publisher=publisher,
        direct=DirectReader(connection),
        claims=ClaimStore(connection),
        dead_letters=letters,
        tracing=tracing,
        metrics=metrics,
        keyring=data_keys.ring if data_keys is not None else IdentityKeyring(),
        data_keys=data_keys,
        now_ms=now_ms,
    )


async def connect_as(user: str, settings: Settings, runtime: Runtime) -> Connection:
    """Connects to the broker as a user: with its NKey seed where the runtime names one, else with ``nats.creds``."""
    seed_file = runtime.credentials.get(user)
    seed = Path(seed_file).read_text().strip() if seed_file else None  # noqa: ASYNC240 - once, at start
    creds = Path(settings.nats.creds) if settings.nats.creds else None

    async def closed() -> None:
        # A client that gave up for good would leave a process that looks alive and does nothing.
        log.error("the broker connection closed for good, ending", user=user)
        signal.raise_signal(signal.SIGTERM)

    return await connect(
        settings.nats.url or runtime.nats,
        user,
        inbox_prefix=inbox_prefix(user),
        nkey_seed=seed,
        creds=creds,
        tls=_tls(settings.nats.tls),
        on_closed=closed,
    )


def _tls(files: TlsSettings | None) -> ssl.SSLContext | None:
    if files is None:
        return None
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


async def stop_service(hosted: Hosted) -> None:
    """Drains one service and closes what it ran on; bounded by DRAIN_SECONDS."""
    service = hosted.platform.service
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await hosted.app.stop()
    except TimeoutError:
        log.warning("drain took too long and was cut", service=service, seconds=DRAIN_SECONDS)
    await hosted.admin.stop()
    if hosted.platform.data_keys is not None:
        await hosted.platform.data_keys.stop()
    await hosted.platform.connection.close()
    await hosted.platform.tracing.aclose()


def _spare_the_collector() -> None:
    """Lets the garbage collector look at young objects seldom and at what is there from the start never.

    Nearly all objects of a message die with their last reference; what the collector is for are rare cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def run(
    services: Sequence[Service],
    settings: Settings,
    runtime: Runtime,
    *,
    admin_ports: dict[str, int] | None = None,
    report: Path | None = None,
    configuration: tuple[Path, Callable[[], Settings]] | None = None,
    on_started: Callable[[Started], None] | None = None,
) -> None:
    """Runs services until SIGTERM or SIGINT; once all are started, writes ``report`` and calls ``on_started``.

    ``configuration`` is the file to follow and how it is read.
    """
    configure_logging(services[0] if len(services) == 1 else "collegium")
    failpoints.arm_from(os.environ)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    profiling.install("+".join(services))
    hosted: list[Hosted] = []
    reloading: Reloading | None = None
    watch: LoopWatch | None = None
    try:
        for service in services:
            port = (admin_ports or {}).get(service, 0)
            hosted.append(await start_service(service, settings, runtime, admin_port=port))
        started = _started(hosted)
        watch = LoopWatch([one.platform.metrics for one in hosted])
        watch.start()
        _spare_the_collector()
        log.info("services ready", services=list(services), admin_ports=started.admin_ports)
        if report is not None:
            draft = report.with_suffix(".new")
            draft.write_bytes(msgspec.json.encode(started))
            draft.replace(report)
        if on_started is not None:
            on_started(started)
        if configuration is not None:
            reloading = Reloading(*configuration, [one.platform for one in hosted])
            reloading.start()
        await stopping.wait()
    finally:
        if watch is not None:
            watch.stop()
        if reloading is not None:
            await reloading.stop()
        # In reverse, so that doors close before what they lean on.
        for one in reversed(hosted):
            await stop_service(one)
