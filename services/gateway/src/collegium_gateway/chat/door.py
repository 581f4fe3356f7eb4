"""``POST /v1/chat/completions``: the hot door, plain ASGI.

One rule: until the first byte of a stream an error is an HTTP error; after it, an event and then ``[DONE]``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import structlog
from collegium_contracts.journey import template
from collegium_contracts.messages import SettledMessage, TaskCanceled, TaskCompleted, TaskFailed, TaskSubmitted
from collegium_contracts.ranks import applying
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, sent
from collegium_telemetry import names
from collegium_telemetry.hop import Hop

from collegium_gateway.admission.admission import Asked, asked_by_chat
from collegium_gateway.admission.holding import OnRates, rate_headers
from collegium_gateway.admission.idempotency import HEADER
from collegium_gateway.admission.requests import decode_chat, parse
from collegium_gateway.chat.chats import Chat, Chats
from collegium_gateway.errors import ApiError, from_task
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Headers, Receive, Scope, Send
from collegium_gateway.http.keyed import REPLAYED_HEADER
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.keyed import Asking, KeyedTask, KeyedTasks
from collegium_gateway.tasks.livetext import Piece
from collegium_gateway.tasks.views import (
    answer_of,
    cache_headers,
    collegium_of,
    completion,
    openai_usage,
    result_headers,
)

log = structlog.get_logger(__name__)

DONE = b"[DONE]"
SUBMITTED = template("TaskSubmitted")


class ChatDoor:
    """The chat endpoint as an ASGI callable."""

    def __init__(self, platform: Platform, directory: Directory, chats: Chats, keyed: KeyedTasks) -> None:
        self._platform = platform
        self._directory = directory
        self._chats = chats
        self._keyed = keyed
        self._max_body_bytes = platform.settings.http.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        hop, common = asgi.begin(self._platform.tracing, scope, "POST /v1/chat/completions")
        principal: Principal | None = None
        try:
            principal = self._directory.keys.authenticate(asgi.header(scope, b"authorization"))
            principal.need("chat")
            body = await asgi.read_body(scope, receive, self._max_body_bytes)
            asked = asked_by_chat(parse(decode_chat, body))
            submitted = self._chats.tasks.prepare(principal, asked, waits=True)
            chat: Chat | KeyedTask
            if (key := asgi.header(scope, HEADER)) is not None:
                asking = Asking(key, "POST", scope["path"], body)
                chat = await self._keyed.begin(principal, asking, submitted, hop)
                self._chats.count("off")
                if chat.replayed:
                    common.append(REPLAYED_HEADER)
            else:
                chat = self._chats.begin(principal, asked, submitted)
            if hop.sampled:
                describe(hop, chat.submitted)
            if asked.streamed:
                await self._stream(asked, chat, hop, receive, send, common)
            else:
                await self._plain(chat, hop, send, common)
        except ApiError as error:
            hop.fail(error.code)
            common += self._chats.tasks.admission.standing_headers(principal, common)
            await asgi.send_error(send, error, common)
        finally:
            hop.end()

    async def _plain(self, chat: Chat | KeyedTask, hop: Hop, send: Send, common: Headers) -> None:
        settled = await chat.complete(hop, adding(common))
        if not isinstance(settled, TaskCompleted):
            raise refusal(settled)
        answer = answer_of(self._platform.keyring, settled.task.tenant, settled.output)
        assert answer is not None, "a completed task has an output"
        body = completion(settled, answer, _trace_of(hop, chat))
        await asgi.send_json(send, 200, body, [*common, *result_headers(settled), *_degraded(chat)])

    async def _stream(
        self,
        asked: Asked,
        chat: Chat | KeyedTask,
        hop: Hop,
        receive: Receive,
        send: Send,
        common: Headers,
    ) -> None:
        pieces = chat.stream(hop, adding(common))
        reading = asyncio.current_task()
        assert reading is not None

        async def watch_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            reading.cancel("client disconnected")

        watcher = asyncio.create_task(watch_client())
        events = ChatEvents(chat, self._directory, send, common)
        try:
            settled: SettledMessage | None = None
            async for piece in pieces:
                if piece.text:
                    await events.text(piece)
                settled = piece.settled
            # After the loop: an error in here must not look like a client that went away.
            if settled is not None:
                await self._finish(asked, events, settled, _trace_of(hop, chat))
        except ApiError as error:
            if not events.started:
                raise
            await events.fail(error)
        except asyncio.CancelledError:
            if reading.uncancel() > 0 or not watcher.done():
                raise
            log.info("client went away in a stream", task=chat.submitted.task.id)
            hop.fail("client_disconnected")
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pieces.aclose()

    async def _finish(self, asked: Asked, events: ChatEvents, settled: SettledMessage, trace_id: str) -> None:
        if not isinstance(settled, TaskCompleted):
            raise refusal(settled)
        answer = answer_of(self._platform.keyring, settled.task.tenant, settled.output)
        assert answer is not None, "a completed task has an output"
        for index, choice in enumerate(answer.choices):
            delta: dict[str, Any] = {}
            if index > 0 and choice.text:
                delta["content"] = choice.text
            if choice.tool_calls:
                delta["tool_calls"] = [
                    {"index": number, **_object(call)} for number, call in enumerate(choice.tool_calls)
                ]
            about = collegium_of(settled, trace_id) if index == len(answer.choices) - 1 else None
            await events.delta(index, delta, choice.finish_reason, settled, about)
        if asked.include_usage:
            await events.usage(settled, trace_id)
        await events.end()


def adding(headers: Headers) -> OnRates:
    """Returns what adds the rates to a response's headers as soon as they are known."""
    return lambda rates: headers.extend(rate_headers(rates))


def describe(hop: Hop, submitted: TaskSubmitted) -> None:
    """Puts the task's attributes on its root span."""
    hop.describe(sent(SUBMITTED) | about(submitted) | {names.REQUEST_MODEL: submitted.task.model})


def _degraded(chat: Chat | KeyedTask) -> Headers:
    """Says why an answer was looked for by its letters alone."""
    reason = chat.cache_degraded if isinstance(chat, Chat) else ""
    return [(b"x-collegium-cache-degraded", reason.encode())] if reason else []


def _trace_of(hop: Hop, chat: Chat | KeyedTask) -> str:
    return chat.trace_id if isinstance(chat, KeyedTask) else hop.trace_id


def refusal(settled: SettledMessage) -> ApiError:
    """Returns the error of a task that did not complete."""
    task = settled.task
    if isinstance(settled, TaskFailed):
        return from_task(settled.error, task.id)
    assert isinstance(settled, TaskCanceled), "only completed, failed and canceled are terminal"
    return ApiError("canceled", f"task {task.id} was canceled", task_id=task.id)


def _object(raw: Any) -> dict[str, Any]:
    return msgspec.json.decode(bytes(raw))


class ChatEvents:
    """The chunks of one streamed chat completion."""

    def __init__(self, chat: Chat | KeyedTask, directory: Directory, send: Send, headers: Headers) -> None:
        self._chat = chat
        self._directory = directory
        self._id = f"chatcmpl-{chat.submitted.task.id}"
        self._created = chat.submitted.task.created_at_ms // 1000
        self._send = send
        self._headers = headers
        self._opened: set[int] = set()
        self.started = False

    async def text(self, piece: Piece) -> None:
        """Sends a piece of the first choice."""
        await self._begin(piece.model, piece.settled)
        await self._chunk(piece.model, 0, {"content": piece.text}, None)

    async def delta(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str,
        settled: SettledMessage,
        about: dict[str, Any] | None,
    ) -> None:
        """Sends the last piece of a choice, with what is said about the answer in that of the last."""
        await self._begin(settled.model, settled)
        extra = {"collegium": about} if about is not None else None
        await self._chunk(settled.model, index, delta, finish_reason, extra)

    async def usage(self, settled: SettledMessage, trace_id: str) -> None:
        """Sends the usage chunk that ``include_usage`` asks for."""
        await self._begin(settled.model, settled)
        body = self._body(settled.model, [])
        body["usage"] = openai_usage(settled.usage)
        body["collegium"] = collegium_of(settled, trace_id)
        await asgi.send_event(self._send, body)

    async def fail(self, error: ApiError) -> None:
        """Sends an error event and ends the stream."""
        await asgi.send_event(self._send, asgi.error_body(error))
        await self.end()

    async def end(self) -> None:
        """Ends the stream."""
        await asgi.send_event(self._send, DONE)
        await asgi.end_events(self._send)

    async def _begin(self, model: str, settled: SettledMessage | None) -> None:
        if not self.started:
            self.started = True
            if settled is None and isinstance(self._chat, Chat):
                settled = self._chat.given
            about = result_headers(settled) if settled is not None else self._known(model)
            await asgi.start_events(self._send, [*self._headers, *about, *_degraded(self._chat)])

    def _known(self, model: str) -> Headers:
        """Returns the headers that say who answers, before it is known what that costs."""
        # By now the chat knows whether its answer is a new one.
        task = self._chat.submitted.task
        headers = [
            (b"x-collegium-task-id", task.id.encode()),
            (b"x-collegium-model", model.encode("latin-1", "replace")),
        ]
        record = next((one for one in self._directory.models if one.name == model), None)
        # A rank that was earned in one domain is not known where the router tells the domain.
        if record is not None and (task.domain or not record.earned):
            headers.append((b"x-collegium-rank", applying(record, task.tenant, task.domain).encode()))
        if not task.open_to:
            headers.append((b"x-collegium-plan", task.plan.encode()))
        return headers + cache_headers(task)

    async def _chunk(
        self,
        model: str,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        if index not in self._opened:
            self._opened.add(index)
            delta = {"role": "assistant", **delta}
        body = self._body(model, [{"index": index, "delta": delta, "finish_reason": finish_reason}])
        if extra:
            body.update(extra)
        await asgi.send_event(self._send, body)

    def _body(self, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": model,
            "choices": choices,
        }
