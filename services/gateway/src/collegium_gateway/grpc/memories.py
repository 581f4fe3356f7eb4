"""``collegium.v1.Memories``: remember, recall, correct, forget, explain, list.

A message becomes the JSON body that HTTP would have carried, and context's JSON becomes the answer's message, field by
field of the same name. One rule: both doors ask the same questions (memories.py), so they refuse the same things.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from collegium_contracts import memory_requests as q
from collegium_protocol.v1 import memory_pb2 as pb
from collegium_protocol.v1.memory_pb2_grpc import MemoriesServicer
from google.protobuf import json_format
from google.protobuf.message import Message

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.grpc.calls import Call, Calls, Context, Method
from collegium_gateway.http.keyed_replies import KeyedReplies, Reply, error_of, error_reply, is_kept
from collegium_gateway.knowledge import memory_bodies as bodies
from collegium_gateway.knowledge.memories import SCOPE, Memories

DEFAULT_PAGE = 50
REMEMBER, RECALL, CORRECT, FORGET, EXPLAIN, LIST = (
    Method(f"collegium.v1.Memories/{name}", SCOPE)
    for name in ("Remember", "Recall", "Correct", "Forget", "Explain", "List")
)
M = TypeVar("M", bound=Message)
_encode = msgspec.json.Encoder().encode


class MemoryService(MemoriesServicer):
    """The service."""

    def __init__(self, calls: Calls, memories: Memories, kept: KeyedReplies) -> None:
        self._calls = calls
        self._memories = memories
        self._kept = kept

    async def Remember(self, request: pb.RememberRequest, context: Context) -> pb.Memory:  # noqa: N802 - the RPC's name
        """Remembers a text at a path."""

        async def work(call: Call) -> pb.Memory:
            body = parse(bodies.decode_memory, _encode(_fields(request)))
            return await self._once(
                call, request, lambda: self._told(call, self._memories.add(call.principal, body), pb.Memory())
            )

        return await self._calls.run(context, REMEMBER, work)

    async def Recall(self, request: pb.RecallRequest, context: Context) -> pb.RecallResponse:  # noqa: N802 - the RPC's name
        """Recalls what answers a question."""

        async def work(call: Call) -> pb.RecallResponse:
            body = parse(bodies.decode_recall, _encode(_fields(request)))
            return await self._told(call, self._memories.recall(call.principal, body), pb.RecallResponse())

        return await self._calls.run(context, RECALL, work)

    async def Correct(self, request: pb.CorrectRequest, context: Context) -> pb.Memory:  # noqa: N802 - the RPC's name
        """Supersedes a memory."""

        async def work(call: Call) -> pb.Memory:
            fields = _fields(request)
            memory = _id(fields.pop("id", ""))
            body = parse(bodies.decode_correction, _encode(fields))
            return await self._once(
                call,
                request,
                lambda: self._told(call, self._memories.correct(call.principal, memory, body), pb.Memory()),
            )

        return await self._calls.run(context, CORRECT, work)

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:  # noqa: N802 - the RPC's name
        """Destroys a memory, or all at a path and below it."""

        async def work(call: Call) -> pb.ForgetResponse:
            if request.id and request.path:
                raise ApiError("invalid_value", "give the id of a memory, or a path", param="path")
            return await self._once(
                call,
                request,
                lambda: self._told(
                    call,
                    self._memories.forget(call.principal, memory=request.id, path=request.path),
                    pb.ForgetResponse(),
                ),
            )

        return await self._calls.run(context, FORGET, work)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.MemoryExplained:  # noqa: N802 - the RPC's name
        """Shows a memory with all its versions, and why it is recalled."""

        async def work(call: Call) -> pb.MemoryExplained:
            shown = await self._memories.explain(
                call.principal,
                _id(request.id),
                question=request.question,
                path=request.path if request.HasField("path") else None,
                task=request.task,
            )
            body = self._body(call, shown)
            told = {name: body.pop(name) for name in ("versions", "recall", "task") if name in body}
            return _message({"memory": body, **told}, pb.MemoryExplained())

        return await self._calls.run(context, EXPLAIN, work)

    async def List(self, request: pb.ListMemoriesRequest, context: Context) -> pb.ListMemoriesResponse:  # noqa: N802 - the RPC's name
        """Lists what is at a path and below it."""

        async def work(call: Call) -> pb.ListMemoriesResponse:
            page = self._memories.page(
                call.principal,
                path=request.path,
                limit=request.limit if request.HasField("limit") else DEFAULT_PAGE,
                cursor=request.cursor,
                forgotten=request.forgotten,
            )
            return await self._told(call, page, pb.ListMemoriesResponse())

        return await self._calls.run(context, LIST, work)

    async def _told(self, call: Call, asked: Awaitable[q.MemoryShown], into: M) -> M:
        return _message(self._body(call, await asked), into)

    def _body(self, call: Call, shown: q.MemoryShown) -> dict[str, Any]:
        return msgspec.json.decode(self._memories.open(call.principal.tenant, shown))

    async def _once(self, call: Call, request: Message, work: Callable[[], Awaitable[M]]) -> M:
        """Does something under the call's idempotency key, where it has one."""
        asking = call.asking(request)
        if asking is None:
            return await work()
        made: list[M] = []

        async def keeping() -> Reply:
            try:
                made.append(await work())
            except ApiError as error:
                if not is_kept(error.kind.http_status):
                    raise
                return error_reply(error)
            return Reply(200, [], made[0].SerializeToString())

        reply, _ = await self._kept.answer(call.principal, asking, keeping)
        if reply.status != 200:
            raise error_of(reply)
        return made[0] if made else _read(request, reply.body)  # pyright: ignore[reportReturnType] - of the same call


def _read(request: Message, body: bytes) -> Message:
    return (pb.ForgetResponse if isinstance(request, pb.ForgetRequest) else pb.Memory).FromString(body)


def _fields(request: Message) -> dict[str, Any]:
    """Returns what was sent as HTTP's body has it; raises ApiError for a time that RFC 3339 cannot write."""
    try:
        return json_format.MessageToDict(
            request, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    except (ValueError, json_format.Error):
        raise ApiError("invalid_value", "a time outside the years 1 to 9999") from None


def _message(body: dict[str, Any], into: M) -> M:
    """Puts JSON into a message; what only JSON says (``object``) is left out."""
    return json_format.ParseDict(body, into, ignore_unknown_fields=True)


def _id(memory: str) -> str:
    if not memory:
        raise ApiError("invalid_value", "give the id of a memory", param="id")
    return memory
