"""``collegium.v1.Chat``: a question answered at once, or as it is written.

One rule: a stream whose client is gone cancels its task, because nobody else reads the answer.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from collegium_contracts.content import Answer
from collegium_contracts.messages import SettledMessage, TaskCompleted, TaskSubmitted
from collegium_protocol.v1.chat_pb2 import ChatChoiceDelta, ChatChunk, ChatDelta, ChatRequest, ChatResponse
from collegium_protocol.v1.chat_pb2_grpc import ChatServicer
from collegium_runtime.platform import Platform

from collegium_gateway.admission.admission import Asked
from collegium_gateway.chat.chats import Chat, Chats
from collegium_gateway.chat.door import describe, refusal
from collegium_gateway.grpc import replies
from collegium_gateway.grpc.calls import Call, Calls, Context, Method
from collegium_gateway.grpc.requests import asked_over_chat
from collegium_gateway.tasks.keyed import KeyedTask, KeyedTasks
from collegium_gateway.tasks.views import answer_of

COMPLETE = Method("collegium.v1.Chat/Complete", "chat")
STREAM = Method("collegium.v1.Chat/Stream", "chat")


class ChatService(ChatServicer):
    """The service."""

    def __init__(self, platform: Platform, calls: Calls, chats: Chats, keyed: KeyedTasks) -> None:
        self._keyring = platform.keyring
        self._calls = calls
        self._chats = chats
        self._keyed = keyed

    async def Complete(self, request: ChatRequest, context: Context) -> ChatResponse:  # noqa: N802 - the RPC's name
        """Answers when the task has settled."""

        async def work(call: Call) -> ChatResponse:
            chat = await self._accept(call, request, asked_over_chat(request, streamed=False))
            return replies.chat_response(
                *self._completed(await chat.complete(call.hop, call.tell_rates)), _trace_of(call, chat)
            )

        return await self._calls.run(context, COMPLETE, work)

    async def Stream(self, request: ChatRequest, context: Context) -> None:  # noqa: N802 - the RPC's name
        """Sends the answer as it is written."""

        async def work(call: Call) -> None:
            asked = asked_over_chat(request, streamed=True)
            chat = await self._accept(call, request, asked)
            chunks = Chunks(chat.submitted, context)
            pieces = chat.stream(call.hop, call.tell_rates)
            settled: SettledMessage | None = None
            # Closing the pieces early is what cancels the task.
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if piece.text:
                        await chunks.text(piece.text, piece.model)
                    settled = piece.settled
            assert settled is not None, "a stream ends with the settled message, or raises"
            completed, answer = self._completed(settled)
            await chunks.finish(asked, completed, answer, _trace_of(call, chat))

        await self._calls.run(context, STREAM, work)

    async def _accept(self, call: Call, request: ChatRequest, asked: Asked) -> Chat | KeyedTask:
        submitted = self._chats.tasks.prepare(call.principal, asked, waits=True)
        chat: Chat | KeyedTask
        if (asking := call.asking(request)) is not None:
            chat = await self._keyed.begin(call.principal, asking, submitted, call.hop)
            self._chats.count("off")
        else:
            chat = self._chats.begin(call.principal, asked, submitted)
        if call.hop.sampled:
            describe(call.hop, chat.submitted)
        await call.accept(chat.submitted.task.id, replayed=isinstance(chat, KeyedTask) and chat.replayed)
        return chat

    def _completed(self, settled: SettledMessage) -> tuple[TaskCompleted, Answer]:
        if not isinstance(settled, TaskCompleted):
            raise refusal(settled)
        answer = answer_of(self._keyring, settled.task.tenant, settled.output)
        assert answer is not None, "a completed task has an output"
        return settled, answer


def _trace_of(call: Call, chat: Chat | KeyedTask) -> str:
    return chat.trace_id if isinstance(chat, KeyedTask) else call.hop.trace_id


class Chunks:
    """The chunks of one streamed answer."""

    def __init__(self, submitted: TaskSubmitted, context: Context) -> None:
        self._id = f"chatcmpl-{submitted.task.id}"
        self._created = submitted.task.created_at_ms // 1000
        self._context = context
        self._opened: set[int] = set()

    async def text(self, text: str, model: str) -> None:
        """Sends a piece of the first choice."""
        await self._send(model, choices=[ChatChoiceDelta(index=0, delta=self._delta(0, content=text))])

    async def finish(self, asked: Asked, settled: TaskCompleted, answer: Answer, trace_id: str) -> None:
        """Sends each choice's last piece (the first choice's text was sent before), then the usage if asked for."""
        who = replies.result(settled, trace_id)
        for index, choice in enumerate(answer.choices):
            calls = [{"index": at, **msgspec.json.decode(bytes(raw))} for at, raw in enumerate(choice.tool_calls or ())]
            delta = self._delta(
                index, content=(choice.text or None) if index > 0 else None, tool_calls_json=replies.json_texts(calls)
            )
            last = ChatChoiceDelta(index=index, delta=delta, finish_reason=choice.finish_reason)
            await self._send(settled.model, choices=[last], collegium=who if index == len(answer.choices) - 1 else None)
        if asked.include_usage:
            await self._send(settled.model, usage=replies.chat_usage(settled), collegium=who)

    def _delta(self, index: int, **fields: Any) -> ChatDelta:
        opens = index not in self._opened
        self._opened.add(index)
        return ChatDelta(role="assistant" if opens else None, **fields)

    async def _send(self, model: str, **fields: Any) -> None:
        await self._context.write(ChatChunk(id=self._id, created=self._created, model=model, **fields))
