"""What both doors do about memories: from what a client sent to context's answer, sealed as it came.

One rule: the tenant and what of its paths may be named are the key's, and no request can say otherwise.
"""

from __future__ import annotations

from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.memory_paths import ROOT
from collegium_contracts.messages import Message
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.knowledge import memory_bodies as bodies

SCOPE = "knowledge"
ASK_SECONDS = 5.0


class Memories:
    """Asks context."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def seal(self, tenant: str, plain: bytes) -> Envelope:
        """Seals what a client wrote."""
        return self._platform.keyring.seal(tenant, plain)

    def open(self, tenant: str, shown: q.MemoryShown) -> bytes:
        """Opens an answer: JSON, as its client is to see it."""
        return self._platform.keyring.open(tenant, shown.content)

    async def ask(self, subject: str, question: Message) -> q.MemoryShown:
        """Returns context's answer; raises ApiError."""
        connection = self._platform.connection
        try:
            return await ask(connection, subject, question, q.MemoryShown, timeout_seconds=ASK_SECONDS)
        except RequestRefusedError as error:
            raise ApiError(error.code, error.message, param=error.param) from error
        except BusError as error:
            raise ApiError(
                "context_unavailable", "memory does not answer; try again later", retry_after_seconds=2
            ) from error

    async def add(self, who: Principal, body: bodies.MemoryBody) -> q.MemoryShown:
        """Remembers."""
        self.need_storage(who)
        question = q.MemoryAdd(
            tenant=who.tenant,
            path=own_path(who, body.path),
            content=self.seal(who.tenant, bodies.content_of(body.text, body.source, who.key_id)),
            kind=body.kind,
            valid_from_ms=bodies.moment_of(body.valid_from, "valid_from"),
            valid_to_ms=bodies.moment_of(body.valid_to, "valid_to"),
            reach=who.memory_reach,
        )
        return await self.ask(s.SVC_MEMORY_ADD, question)

    async def correct(self, who: Principal, memory: str, body: bodies.CorrectionBody) -> q.MemoryShown:
        """Supersedes a memory."""
        self.need_storage(who)
        question = q.MemoryCorrect(
            tenant=who.tenant,
            id=memory,
            content=self.seal(who.tenant, bodies.content_of(body.text, body.source, who.key_id)),
            valid_from_ms=bodies.moment_of(body.valid_from, "valid_from"),
            valid_to_ms=bodies.moment_of(body.valid_to, "valid_to"),
            reach=who.memory_reach,
        )
        return await self.ask(s.SVC_MEMORY_CORRECT, question)

    async def recall(self, who: Principal, body: bodies.RecallBody) -> q.MemoryShown:
        """Finds what is known under a path."""
        question = q.MemoryRecall(
            tenant=who.tenant,
            path=own_path(who, body.path),
            question=self.seal(who.tenant, body.question.encode()),
            limit=body.limit,
            max_tokens=body.max_tokens,
            kinds=body.kinds,
            as_of_ms=bodies.moment_of(body.as_of, "as_of"),
            known_at_ms=bodies.moment_of(body.known_at, "known_at"),
            inherits=body.inherits,
            reach=who.memory_reach,
        )
        return await self.ask(s.SVC_MEMORY_RECALL, question)

    async def page(
        self, who: Principal, *, path: str | None, limit: int, cursor: str, forgotten: bool
    ) -> q.MemoryShown:
        """Lists what is at a path and below it."""
        question = q.MemoryList(
            tenant=who.tenant,
            path=own_path(who, path),
            limit=limit,
            before_id=cursor,
            forgotten=forgotten,
            reach=who.memory_reach,
        )
        return await self.ask(s.SVC_MEMORY_LIST, question)

    async def explain(
        self, who: Principal, memory: str, *, question: str = "", path: str | None = None, task: str = ""
    ) -> q.MemoryShown:
        """Shows a memory with all its versions, and why a question, or a task, recalls it."""
        asked = q.MemoryExplain(
            tenant=who.tenant,
            id=memory,
            path=path,
            question=self.seal(who.tenant, question.encode()) if question else None,
            task=task,
            reach=who.memory_reach,
        )
        return await self.ask(s.SVC_MEMORY_EXPLAIN, asked)

    async def forget(self, who: Principal, *, memory: str = "", path: str | None = None) -> q.MemoryShown:
        """Destroys a memory, or all at a path and below it; raises ApiError where neither is named."""
        if not memory and not path:
            raise ApiError("invalid_value", "say which path is to be forgotten; / is all of the tenant", param="path")
        question = q.MemoryForget(tenant=who.tenant, id=memory, path=path, reach=who.memory_reach)
        return await self.ask(s.SVC_MEMORY_FORGET, question)

    def need_storage(self, who: Principal) -> None:
        """Raises ApiError where the tenant's storage is full."""
        self._directory.need_storage(who.tenant, who.tier)


def own_path(who: Principal, path: str | None) -> str:
    """Returns the path that is meant where none is named: the key's project's, or the tenant's itself."""
    return path or who.memory_reach.project or ROOT
