"""The gRPC door: the server, its services, reflection and health.

The services are in grpc_chat.py, grpc_tasks.py and grpc_memories.py. This module and its neighbours named ``grpc_*``
are imported when the door opens and by nobody else, because grpc costs 19 MB and a fifth of a second. One rule: what
HTTP refuses is refused here, by the same checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from collegium_protocol.v1 import chat_pb2, chat_pb2_grpc, memory_pb2, memory_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from collegium_runtime.platform import Platform
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from collegium_gateway.chat.chats import Chats
from collegium_gateway.grpc.calls import Calls
from collegium_gateway.grpc.chat import ChatService
from collegium_gateway.grpc.memories import MemoryService
from collegium_gateway.grpc.tasks import TaskService
from collegium_gateway.http.keyed_replies import KeyedReplies
from collegium_gateway.identity.directory import Directory
from collegium_gateway.knowledge.memories import Memories
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.keyed import KeyedTasks
from collegium_gateway.tasks.waiting import MAX_WAITING

HEALTH_SECONDS = 0.5
SERVICES = (
    chat_pb2.DESCRIPTOR.services_by_name["Chat"].full_name,
    tasks_pb2.DESCRIPTOR.services_by_name["Tasks"].full_name,
    memory_pb2.DESCRIPTOR.services_by_name["Memories"].full_name,
)


class GrpcDoor:
    """The gRPC server of this replica; ``readiness`` is what its health service tells."""

    def __init__(
        self,
        platform: Platform,
        directory: Directory,
        tasks: Tasks,
        chats: Chats,
        keyed: KeyedTasks,
        replies: KeyedReplies,
        readiness: Callable[[], dict[str, bool]],
    ) -> None:
        settings = platform.settings
        host = f"[{settings.grpc.host}]" if ":" in settings.grpc.host else settings.grpc.host
        self._address = f"{host}:{settings.grpc.port}"
        self._readiness = readiness
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.http.max_body_bytes),
                ("grpc.so_reuseport", 0),  # a second gateway on the same port must fail, not share it
            ],
            # Each call waits for a task, and no more may wait than that.
            maximum_concurrent_rpcs=MAX_WAITING,
        )
        calls = Calls(platform, directory)
        self._task_service = TaskService(platform, calls, tasks, keyed, replies)
        # The package's published types do not know its asyncio half.
        self._health: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
        chat_pb2_grpc.add_ChatServicer_to_server(ChatService(platform, calls, chats, keyed), self._server)
        tasks_pb2_grpc.add_TasksServicer_to_server(self._task_service, self._server)
        memories = MemoryService(calls, Memories(platform, directory), replies)
        memory_pb2_grpc.add_MemoriesServicer_to_server(memories, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._reporting: asyncio.Task[None] | None = None
        self.port = 0
        self.listening = False

    async def start(self) -> None:
        """Listens; port 0 takes a free one (see ``port``). Raises RuntimeError where the port is taken."""
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()
        self.listening = True
        self._reporting = asyncio.create_task(self._report_health(), name="grpc-health")

    async def stop(self, drain_seconds: float) -> None:
        """Takes no new calls, ends what watches, and waits that long for the calls that run."""
        self.listening = False
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        self._task_service.end_watches()
        await self._server.stop(drain_seconds)

    async def _report_health(self) -> None:
        known: bool | None = None
        while True:
            ready = all(self._readiness().values())
            if ready is not known:
                known = ready
                status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
                for service in ("", *SERVICES):
                    await self._health.set(service, status)
            await asyncio.sleep(HEALTH_SECONDS)
