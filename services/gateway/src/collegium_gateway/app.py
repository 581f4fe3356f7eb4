"""Wiring of the gateway: directory, waits, read model, doors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import asyncpg
import uvicorn
from collegium_bus import topology
from collegium_bus.events import EventLoop
from collegium_contracts import codec
from collegium_contracts.consumers import consumer
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.audit import Audit
from collegium_runtime.erasing import Erasing
from collegium_runtime.platform import Platform
from collegium_runtime.storage import StorageBook
from collegium_runtime.storage_count import StorageCount
from collegium_settings import Settings
from collegium_store import open_pool

from collegium_gateway.admission.answers_judged import AnswersJudged
from collegium_gateway.admission.claimbook import ClaimBook
from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.judging import ModelRules
from collegium_gateway.chat.chats import Chats
from collegium_gateway.chat.door import ChatDoor
from collegium_gateway.chat.embeddings import PATH as EMBEDDINGS
from collegium_gateway.chat.embeddings import EmbeddingDoor
from collegium_gateway.http.keyed_replies import KeyedReplies
from collegium_gateway.http.server import HttpDoor
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.issuers import Issuers
from collegium_gateway.identity.key_use import KeyUse
from collegium_gateway.identity.keywatch import KeyWatch, WatchedKeys
from collegium_gateway.knowledge.index_door import IndexDoor
from collegium_gateway.knowledge.rewriter import Rewriter
from collegium_gateway.knowledge.search_door import SearchDoor
from collegium_gateway.operating.admin import AdminDoor
from collegium_gateway.operating.audit_door import AuditDoor
from collegium_gateway.operating.audited import AuditedActs
from collegium_gateway.operating.dead_letters import DeadLetterDoor
from collegium_gateway.operating.domains_door import DomainsDoor
from collegium_gateway.operating.experiments_door import ExperimentsDoor
from collegium_gateway.operating.gates_door import GatesDoor
from collegium_gateway.operating.privacy_door import PrivacyDoor
from collegium_gateway.operating.students_door import StudentsDoor
from collegium_gateway.people.answering import Answering
from collegium_gateway.people.book import QuestionBook
from collegium_gateway.people.door import ApprovalDoor
from collegium_gateway.people.expiring import Expiring
from collegium_gateway.people.pausing import FirstPauses
from collegium_gateway.readmodel.erasure_store import GatewayErasure
from collegium_gateway.readmodel.projection import Projection
from collegium_gateway.readmodel.purging import Purging
from collegium_gateway.readmodel.store import TaskStore
from collegium_gateway.reuse.door import CacheDoor
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.door import TaskDoor
from collegium_gateway.tasks.following import Following
from collegium_gateway.tasks.keyed import KeyedTasks
from collegium_gateway.tasks.ladder_door import LadderDoor
from collegium_gateway.tasks.schedules_door import ScheduleDoor
from collegium_gateway.tasks.submitting import SubmitDoor
from collegium_gateway.tasks.waiting import Waiting
from collegium_gateway.webhooks.client import WebhookClient
from collegium_gateway.webhooks.door import WebhookDoor
from collegium_gateway.webhooks.sender import WebhookSender
from collegium_gateway.webhooks.store import WebhookStore

if TYPE_CHECKING:
    from collegium_gateway.grpc.server import GrpcDoor

BACKLOG = 2048
READ_MODEL_LINGER_SECONDS = 0.1
DRAIN_SECONDS = 8
GRPC_DRAIN_SECONDS = 5


class GatewayApp:
    """The gateway as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._keys = WatchedKeys()
        self._directory = Directory(
            platform.connection, platform.now_ms, self._keys, platform.data_keys, StorageBook(platform)
        )
        self._audit = Audit.of(platform)
        self._watch = KeyWatch(platform, self._audit)
        self._waiting = Waiting(platform)
        self._pool: asyncpg.Pool | None = None
        self._store: TaskStore | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._read_model: EventLoop[JourneyMessage] | None = None
        self._sender: WebhookSender | None = None
        self._webhook_client: WebhookClient | None = None
        self._following: Following | None = None
        self._chats: Chats | None = None
        self._issuers: Issuers | None = None
        self._key_use: KeyUse | None = None
        self._erasing: Erasing | None = None
        self._gating = Gating(platform, self._audit)
        self._answers_judged: AnswersJudged | None = None
        self._storage_count: StorageCount | None = None
        self._purging: Purging | None = None
        self._expiring: Expiring | None = None
        self.port = 0
        self.tasks: Tasks | None = None
        self.grpc: GrpcDoor | None = None

    async def start(self) -> None:
        """Reads the directory, opens the read model, then the doors."""
        platform = self._platform
        await topology.verify(platform.connection, "gateway")
        self._pool = await open_pool(platform.database_url, application_name="collegium-gateway")
        self._store = TaskStore(self._pool)
        self._storage_count = StorageCount(platform, self._pool)
        self._storage_count.start()
        self._purging = Purging(self._pool, platform.now_ms, lambda: platform.settings.tasks.retention_days)
        self._purging.rounds.start()
        await self._directory.start()
        self._issuers = Issuers.configured(platform.settings.jwt)
        if (tokens := self._issuers.tokens(self._directory.keys.record, platform.now_ms)) is not None:
            self._directory.take_tokens(tokens)
        self._key_use = KeyUse(platform.connection, self._directory.keys, platform.now_ms)
        self._key_use.start()
        self._keys.watch = self._watch
        self._watch.start()
        assert platform.data_keys is not None, "a gateway makes data keys"
        self._erasing = Erasing(
            platform,
            {"data_keys": platform.data_keys.destroy, "gateway": GatewayErasure(self._pool, platform.connection).erase},
            self._directory.letting_in.shut,
        )
        await self._erasing.start()
        await self._waiting.start()
        await self._gating.start()
        book = QuestionBook(self._pool)
        answering = Answering(platform, self._gating, self._audit)
        pauses = FirstPauses(platform, book)
        self.tasks = Tasks(platform, self._directory, self._waiting, self._store, self._gating, pauses, answering)
        self._gating.models = models = ModelRules(platform, self._directory, self.tasks)
        self._answers_judged = AnswersJudged(platform, models)
        self._answers_judged.start()
        self._expiring = Expiring(platform, book, answering)
        self._expiring.start()
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
        self._chats = Chats(platform, self._directory, self.tasks)
        self._chats.start()
        claims = ClaimBook(platform)
        keyed = KeyedTasks(platform, self.tasks, claims, self._following)
        replies = KeyedReplies(claims, platform.keyring)
        door = HttpDoor(
            platform,
            self._directory,
            ChatDoor(platform, self._directory, self._chats, keyed),
            SubmitDoor(platform, self._directory, self.tasks, keyed),
            TaskDoor(platform, self._directory, self.tasks),
            AdminDoor(platform, self._directory),
            WebhookDoor(platform, self._directory, webhooks),
            self.readiness,
            replies,
            [
                *LadderDoor(platform).routes(),
                *DeadLetterDoor(platform, self._directory, self.tasks, webhooks).routes(),
                *SearchDoor(platform, self._directory, Rewriter(platform, self._chats)).routes(),
                *IndexDoor(platform, self._directory).routes(),
                *CacheDoor(platform, self._directory, self._chats).routes(),
                *AuditDoor(platform, self._directory, self._audit).routes(),
                *ScheduleDoor(platform, self._directory, self._gating).routes(),
                *GatesDoor(platform, self._directory, self._gating).routes(),
                *StudentsDoor(platform, self._directory, webhooks).routes(),
                *DomainsDoor(platform, self._directory).routes(),
                *ExperimentsDoor(platform, self._directory).routes(),
                *ApprovalDoor(platform, self._directory, book, answering, self._audit).routes(),
                *PrivacyDoor(self._directory, platform.data_keys, self._erasing).routes(),
            ],
            lambda routes: AuditedActs(self._audit, self._watch, self._directory, routes),
            {EMBEDDINGS: EmbeddingDoor(platform, self._directory, self.tasks, keyed)},
        )
        await self._listen(door)
        from collegium_gateway.grpc.server import GrpcDoor  # noqa: PLC0415 - heavy, and only a running gateway needs it

        self.grpc = GrpcDoor(platform, self._directory, self.tasks, self._chats, keyed, replies, self.readiness)
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
        if self._chats is not None:
            await self._chats.stop()
        if self._read_model is not None:
            await self._read_model.stop()
        if self._sender is not None:
            await self._sender.stop()
        if self._answers_judged is not None:
            await self._answers_judged.stop()
        await self._waiting.stop()
        if self._key_use is not None:
            await self._key_use.stop()
        if self._issuers is not None:
            await self._issuers.close()
        if self._following is not None:
            self._following.stop()
        if self._erasing is not None:
            await self._erasing.stop()
        if self._expiring is not None:
            await self._expiring.stop()
        if self._storage_count is not None:
            await self._storage_count.stop()
        if self._purging is not None:
            await self._purging.rounds.stop()
        await self._directory.stop()
        await self._watch.stop()
        await self._gating.stop()
        await self._audit.stop()
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
