"""``GET /v1/tasks/{id}/events``: a task's states, tokens and result as they happen, resumable on any replica.

States, checkpoints and the result come from EVENTS in order, with the stream's sequence as the event id; tokens come
live and carry no id. Whoever follows from the start gets tokens that join to the output, however late it comes; whoever
resumes gets those that come. One rule: after ``Last-Event-ID`` nothing stored is left out, on whichever replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
from collegium_bus.delivery import Delivery
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import (
    AttemptStarted,
    InputRequired,
    Message,
    Settled,
    TaskAccepted,
    TaskCompleted,
    TaskDispatched,
    TaskInput,
    TextCheckpointed,
    TokenChunk,
)
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import trace_of

from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Headers, Receive, Send
from collegium_gateway.readmodel.rows import TERMINAL
from collegium_gateway.tasks.healing import JoinedText, Token
from collegium_gateway.tasks.queueing import QueueLook
from collegium_gateway.tasks.views import TaskView, settled_view

KEEP_ALIVE_SECONDS = 15.0
PLACE_SECONDS = 1.0


class TaskEvent(msgspec.Struct, frozen=True):
    """One server-sent event of a task."""

    event: str
    data: Any
    sequence: int | None = None


class TaskEvents:
    """Follows one task for one client."""

    def __init__(self, platform: Platform, queue: QueueLook, tenant: str, view: TaskView, after: int) -> None:
        self._platform = platform
        self._queue_look = queue
        self._tenant = tenant
        self._view = view
        self._queue: asyncio.Queue[TaskEvent | None] = asyncio.Queue()
        self._working = False
        # Whoever resumes was told of a state before, and none is told backwards.
        self._resumes = after > 0
        # Tokens that come while stored events are still being told.
        self._held: list[TokenChunk] | None = []
        self._joined = JoinedText()
        task_id = view.id
        self._reader = OrderedReader(
            platform.connection,
            s.EVENTS,
            [
                s.task_changed(tenant, task_id),
                s.pauses_of(tenant, task_id),
                s.inputs_of(tenant, task_id),
                s.attempts_of(tenant, task_id),
                s.task_settled(tenant, task_id),
            ],
            self._on_event,
            start_sequence=after + 1,
            label="task-events",
        )

    async def serve(self, receive: Receive, send: Send, headers: Headers) -> None:
        """Sends events until the task is done or the client is gone."""
        client = self._platform.connection.client
        sid = client.subscribe_raw(s.token(self._tenant, self._view.id), self._on_token)
        self._reader.start()
        gone = asyncio.create_task(self._wait_for_disconnect(receive))
        replayed = asyncio.create_task(self._after_replay())
        placing = asyncio.create_task(self._tell_place())
        try:
            await asgi.start_events(send, headers)
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        event = await self._queue.get()
                except TimeoutError:
                    await send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})
                    continue
                if event is None:
                    return
                await asgi.send_event(send, event.data, event=event.event, event_id=event.sequence)
                if event.event == "done":
                    await asgi.end_events(send)
                    return
        finally:
            for task in (replayed, gone, placing):
                task.cancel()
            client.unsubscribe_raw(sid)
            await self._reader.stop()

    async def _after_replay(self) -> None:
        """Lets live tokens through once what is stored was told.

        A task that settled so long ago that EVENTS forgot it is finished from the read model.
        """
        await self._reader.caught_up.wait()
        held, self._held = self._held, None
        for chunk in held or ():
            self._tell(chunk)
        if self._view.state in TERMINAL:
            self._queue.put_nowait(TaskEvent("done", self._view))

    async def _tell_place(self) -> None:
        """Tells where the task stands in the queue, whenever that changed, until it is worked on."""
        await self._reader.caught_up.wait()
        told = 0
        while not self._working and self._view.state not in TERMINAL:
            reply = await self._queue_look.of_task(self._tenant, self._view.id)
            if reply is not None and reply.position and reply.position != told:
                told = reply.position
                data = {
                    "state": "submitted",
                    "queue_position": reply.position,
                    "queue_age_ms": self._queue_look.age_ms(reply),
                    "estimated_wait_seconds": reply.wait_seconds,
                }
                self._queue.put_nowait(TaskEvent("state", data))
            await asyncio.sleep(PLACE_SECONDS)

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._queue.put_nowait(None)

    def _on_event(self, delivery: Delivery) -> None:
        try:
            message = codec.journey.decode(delivery.payload)
        except ContractError:
            return
        if (event := self._event(message, delivery)) is not None:
            if not self._resumes:
                self._tell_missed(message, event)
            self._queue.put_nowait(event)

    def _tell_missed(self, message: Message, event: TaskEvent) -> None:
        """Tells the tokens that a checkpoint, or the output, shows to be missing."""
        if isinstance(message, TextCheckpointed):
            source = (message.attempt.number, message.delivery)
            self._put(self._joined.checkpoint(source, message.chunks, event.data["text"]))
        elif isinstance(message, TaskCompleted):
            self._put(self._joined.complete(event.data.output or ""))

    def _event(self, message: Message, delivery: Delivery) -> TaskEvent | None:
        sequence = delivery.sequence
        match message:
            case TaskAccepted():
                # A quick worker's AttemptStarted may be stored first; a state is never told backwards.
                is_past = self._working or self._resumes
                return None if is_past else TaskEvent("state", {"state": "submitted"}, sequence)
            case TaskDispatched():
                self._working = True
                return TaskEvent("state", {"state": "working", "models": message.models}, sequence)
            case AttemptStarted():
                self._working = True
                data = {"state": "working", "attempt": message.attempt.number, "model": message.attempt.model}
                return TaskEvent("state", data, sequence)
            case InputRequired():
                self._working = True
                questions = [
                    {"id": one.id, "kind": one.kind, "of": one.of, "queue": one.queue or None, "reason": one.reason}
                    for one in message.questions
                ]
                data = {"state": "input_required", "stage": message.stage, "questions": questions}
                return TaskEvent("state", data, sequence)
            case TaskInput():
                data = {"state": "input_required", "question": message.question, "decision": message.decision}
                return TaskEvent("state", data, sequence)
            case TextCheckpointed():
                text = self._platform.keyring.open(self._tenant, message.text).decode(errors="replace")
                data = {"text": text, "chunks": message.chunks, "attempt": message.attempt.number}
                return TaskEvent("checkpoint", data, sequence)
            case Settled():
                trace_id = trace_of(delivery.header(s.TRACEPARENT))
                view = settled_view(message, self._platform.keyring, trace_id)  # pyright: ignore[reportArgumentType]
                return TaskEvent("done", view, sequence)
            case _:
                return None

    def _on_token(self, _subject: bytes, _reply: bytes, payload: bytes, _block: bytes | None) -> None:
        try:
            message = codec.journey.decode(payload)
        except ContractError:
            return
        if isinstance(message, TokenChunk):
            if self._held is not None:
                self._held.append(message)
            else:
                self._tell(message)

    def _tell(self, chunk: TokenChunk) -> None:
        text = self._platform.keyring.open(self._tenant, chunk.text).decode(errors="replace")
        source = (chunk.attempt, chunk.delivery)
        self._put([(source, chunk.number, text)] if self._resumes else self._joined.chunk(source, chunk.number, text))

    def _put(self, tokens: Iterable[Token]) -> None:
        for (attempt, delivery), number, text in tokens:
            data = {"text": text, "number": number, "attempt": attempt, "delivery": delivery}
            self._queue.put_nowait(TaskEvent("token", data))
