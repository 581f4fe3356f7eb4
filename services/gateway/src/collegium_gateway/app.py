"""Wiring of the gateway: directory, waits, read model, doors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import asyncpg
import uvicorn
from collegium_bus import topology
from collegium_bus.events import EventLoop
from collegium_contracts import codec
from collegium_contracts.journey import consumer
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.platform import Platform
from collegium_settings import Settings
from collegium_store import open_pool

from collegium_gateway.admin import AdminDoor
from collegium_gateway.application import Tasks
from collegium_gateway.chat import ChatDoor
from collegium_gateway.claimbook import ClaimBook
from collegium_gateway.dead_letters import DeadLetterDoor
from collegium_gateway.directory import Directory
from collegium_gateway.following import Following
from collegium_gateway.http import HttpDoor
from collegium_gateway.keyed_replies import KeyedReplies
from collegium_gateway.keyed_tasks import KeyedTasks
from collegium_gateway.projection import Projection
from collegium_gateway.sealing import Sealer
from collegium_gateway.storage import StorageStore
from collegium_gateway.store import TaskStore
from collegium_gateway.submitting import SubmitDoor
from collegium_gateway.tasks import TaskDoor
from collegium_gateway.waiting import Waiting
from collegium_gateway.webhook_client import WebhookClient
from collegium_gateway.webhook_door import WebhookDoor
from collegium_gateway.webhook_sender import WebhookSender
from collegium_gateway.webhook_store import WebhookStore

if TYPE_CHECKING:
    from collegium_gateway.grpc import GrpcDoor

BACKLOG = 2048
READ_MODEL_LINGER_SECONDS = 0.1
DRAIN_SECONDS = 8
GRPC_DRAIN_SECONDS = 5


class GatewayApp:
    """The gateway as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._directory = Directory(platform.connection)
        self._waiting = Waiting(platform)
        self._pool: asyncpg.Pool[Any] | None = None
        self._store: TaskStore | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._read_model: EventLoop[JourneyMessage] | None = None
        self._sender: WebhookSender | None = None
        self._webhook_client: WebhookClient | None = None
        self._following: Following | None = None
        self.port = 0
        self.tasks: Tasks | None = None
        self.grpc: GrpcDoor | None = None

    async def start(self) -> None:
        """Reads the directory, opens the read model, then the doors."""
        platform = self._platform
        await topology.verify(platform.connection, "gateway")
        self._pool = await open_pool(platform.database_url, application_name="collegium-gateway")
        self._store = TaskStore(self._pool)
        await self._directory.start()
        await self._waiting.start()
        self.tasks = Tasks(platform, self._directory, self._waiting, self._store)
        webhooks = WebhookStore(self._pool, platform.keyring)
        self._webhook_client = WebhookClient(allow_private=platform.settings.webhooks.allow_private_addresses)
        platform.on_settings.append(self._use_settings)
        self._sender = WebhookSender(platform, self._store, webhooks, self._webhook_client)
        await self._sender.start()
        self._read_model = EventLoop(
            platform.connection,
            consumer("read-model"),
            codec.journey,
            Projection(platform, self._store, self._sender.wake).handle,
            platform.dead_letters,
            linger_seconds=READ_MODEL_LINGER_SECONDS,
        )
        self._read_model.start()
        self._following = Following(platform, self._store)
        book = ClaimBook(platform)
        keyed = KeyedTasks(platform, self.tasks, book, self._following)
        key = platform.settings.encryption.key
        replies = KeyedReplies(book, Sealer(platform.data_dir, key.reveal() if key else None))
        door = HttpDoor(
            platform,
            self._directory,
            ChatDoor(platform, self._directory, self.tasks, keyed),
            SubmitDoor(platform, self._directory, self.tasks, keyed),
            TaskDoor(platform, self._directory, self.tasks),
            AdminDoor(platform, self._directory, StorageStore(self._pool)),
            WebhookDoor(platform, self._directory, webhooks),
            self.readiness,
            replies,
            DeadLetterDoor(platform, self._directory, self.tasks, webhooks).routes(),
        )
        await self._listen(door)
        from collegium_gateway.grpc import GrpcDoor  # noqa: PLC0415 - heavy, and only a running gateway needs it

        self.grpc = GrpcDoor(platform, self._directory, self.tasks, keyed, replies, self.readiness)
        await self.grpc.start()

    async def _use_settings(self, settings: Settings) -> None:
        if self._webhook_client is not None:
            await self._webhook_client.use(allow_private=settings.webhooks.allow_private_addresses)

    async def _listen(self, door: HttpDoor) -> None:
        http = self._platform.settings.http
        listening = socket.create_server((http.host, http.port), backlog=BACKLOG, reuse_port=False)
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            door,
            http="httptools",
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="http")
        while not self._server.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Closes the doors, lets what waits finish, then the rest."""
        if self.grpc is not None:
            await self.grpc.stop(GRPC_DRAIN_SECONDS)
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._read_model is not None:
            await self._read_model.stop()
        if self._sender is not None:
            await self._sender.stop()
        await self._waiting.stop()
        if self._following is not None:
            self._following.stop()
        await self._directory.stop()
        if self._pool is not None:
            await self._pool.close()

    def readiness(self) -> dict[str, bool]:
        """Whether the doors are open and there is somebody to let in and a model to answer."""
        return {
            "listening": self._server is not None and self._server.started,
            "grpc": self.grpc is not None and self.grpc.listening,
            "directory": self._directory.ready,
        }

    def addresses(self) -> dict[str, str]:
        """Where both doors listen, once they do."""
        http, grpc = self._platform.settings.http, self._platform.settings.grpc
        found = {"http": f"http://{_bracketed(http.host)}:{self.port}"}
        if self.grpc is not None:
            found["grpc"] = f"{_bracketed(grpc.host)}:{self.grpc.port}"
        return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handling: the host drains."""

    @contextlib.contextmanager
    def capture_signals(self):
        """Leaves signals to the host."""
        yield


def build(platform: Platform) -> GatewayApp:
    """Builds the service."""
    return GatewayApp(platform)
