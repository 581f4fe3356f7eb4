"""``collegium.v1.Tasks``: submit, get, list, cancel, feedback, input, watch.

One rule: after ``after_sequence`` nothing stored is left out, on whichever replica.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable

from collegium_protocol.v1.tasks_pb2 import (
    CancelRequest,
    FeedbackRequest,
    FeedbackResponse,
    GetRequest,
    ListRequest,
    ListResponse,
    ProvideInputRequest,
    SubmitRequest,
    Task,
    WatchRequest,
)
from collegium_protocol.v1.tasks_pb2_grpc import TasksServicer
from collegium_runtime.platform import Platform

from collegium_gateway.chat.door import describe
from collegium_gateway.errors import ApiError
from collegium_gateway.grpc import replies
from collegium_gateway.grpc.calls import Call, Calls, Context, Method
from collegium_gateway.grpc.requests import asked_feedback, asked_input, asked_over_tasks, rfc3339_of
from collegium_gateway.grpc.watch import TaskWatch
from collegium_gateway.http.keyed_replies import KeyedReplies, Reply, error_of, error_reply, is_kept
from collegium_gateway.readmodel.rows import STATES, State
from collegium_gateway.tasks import feedback
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.door import MAX_PAGE, cursor, cursor_of
from collegium_gateway.tasks.keyed import Asking, KeyedTask, KeyedTasks
from collegium_gateway.tasks.submitting import MAX_WAIT_SECONDS

DEFAULT_PAGE = 50
SUBMIT, GET, LIST, CANCEL, FEEDBACK, INPUT, WATCH = (
    Method(f"collegium.v1.Tasks/{name}", "tasks")
    for name in ("Submit", "Get", "List", "Cancel", "Feedback", "ProvideInput", "Watch")
)


class TaskService(TasksServicer):
    """The service."""

    def __init__(self, platform: Platform, calls: Calls, tasks: Tasks, keyed: KeyedTasks, kept: KeyedReplies) -> None:
        self._platform = platform
        self._calls = calls
        self._tasks = tasks
        self._keyed = keyed
        self._kept = kept
        self._watches: set[TaskWatch] = set()

    def end_watches(self) -> None:
        """Ends every Watch with ``not_ready``, so that a stopping gateway need not wait for them."""
        for watch in self._watches:
            watch.end()

    async def Submit(self, request: SubmitRequest, context: Context) -> Task:  # noqa: N802 - the RPC's name
        """Stores a task, and waits for it where that is asked."""

        async def work(call: Call) -> Task:
            asked = asked_over_tasks(request)
            wait_seconds = _wait_of(request)
            submitted = self._tasks.prepare(call.principal, asked, waits=wait_seconds > 0)
            keyed: KeyedTask | None = None
            if (asking := call.asking(request)) is not None:
                keyed = await self._keyed.begin(
                    call.principal, asking, submitted, call.hop, callback_url=asked.callback_url
                )
                submitted = keyed.submitted
            if call.hop.sampled:
                describe(call.hop, submitted)
            await call.accept(submitted.task.id, replayed=keyed is not None and keyed.replayed)
            if keyed is not None:
                return replies.task(await keyed.submit(call.hop, wait_seconds=wait_seconds, on_rates=call.tell_rates))
            view = await self._tasks.submit(
                submitted,
                call.hop,
                wait_seconds=wait_seconds,
                callback_url=asked.callback_url,
                on_rates=call.tell_rates,
            )
            return replies.task(view)

        return await self._calls.run(context, SUBMIT, work)

    async def Get(self, request: GetRequest, context: Context) -> Task:  # noqa: N802 - the RPC's name
        """Returns a task."""

        async def work(call: Call) -> Task:
            return replies.task(await self._tasks.get(call.principal, request.id))

        return await self._calls.run(context, GET, work)

    async def List(self, request: ListRequest, context: Context) -> ListResponse:  # noqa: N802 - the RPC's name
        """Returns a page of tasks, newest first."""

        async def work(call: Call) -> ListResponse:
            views, more = await self._tasks.page(
                call.principal,
                state=_state_of(request),
                since_ms=_since_of(request),
                before=cursor_of(request.cursor),
                limit=_limit_of(request),
            )
            return replies.task_list(views, cursor(more) if more is not None else None)

        return await self._calls.run(context, LIST, work)

    async def Cancel(self, request: CancelRequest, context: Context) -> Task:  # noqa: N802 - the RPC's name
        """Cancels a task."""

        async def work(call: Call) -> Task:
            async def cancel() -> Task:
                return replies.task(await self._tasks.cancel(call.principal, request.id))

            if (asking := call.asking(request)) is None:
                return await cancel()
            return Task.FromString(await self._once(call, asking, request.id, cancel))

        return await self._calls.run(context, CANCEL, work)

    async def Feedback(self, request: FeedbackRequest, context: Context) -> FeedbackResponse:  # noqa: N802
        """Stores what became of a task's answer."""

        async def work(call: Call) -> FeedbackResponse:
            asked = asked_feedback(request)

            async def give() -> FeedbackResponse:
                settled = await self._tasks.settled(call.principal, request.id)
                told = await feedback.give(self._platform, call.principal, settled, asked, call.hop.traceparent)
                return replies.feedback(told)

            if (asking := call.asking(request)) is None:
                return await give()
            return FeedbackResponse.FromString(await self._once(call, asking, request.id, give))

        return await self._calls.run(context, FEEDBACK, work)

    async def ProvideInput(self, request: ProvideInputRequest, context: Context) -> Task:  # noqa: N802
        """Answers what a task waits for its client for; asked again with the same answer, it is the same."""

        async def work(call: Call) -> Task:
            asked = asked_input(request)

            async def provide() -> Task:
                traceparent = call.hop.traceparent
                return replies.task(await self._tasks.provide_input(call.principal, request.id, asked, traceparent))

            if (asking := call.asking(request)) is None:
                return await provide()
            return Task.FromString(await self._once(call, asking, request.id, provide))

        return await self._calls.run(context, INPUT, work)

    async def _once(
        self, call: Call, asking: Asking, task_id: str, work: Callable[[], Awaitable[Task | FeedbackResponse]]
    ) -> bytes:
        """Answers what came under an idempotency key: does it once, and returns the reply that is kept, as bytes."""

        async def kept() -> Reply:
            try:
                done = await work()
            except ApiError as error:
                if not is_kept(error.kind.http_status):
                    raise
                return error_reply(error)
            return Reply(200, [], done.SerializeToString())

        reply, replayed = await self._kept.answer(call.principal, asking, kept)
        await call.accept(task_id, replayed=replayed)
        if reply.status != 200:
            raise error_of(reply)
        return reply.body

    async def Watch(self, request: WatchRequest, context: Context) -> None:  # noqa: N802 - the RPC's name
        """Sends a task's events until it is done."""

        async def work(call: Call) -> None:
            view = await self._tasks.get(call.principal, request.id)
            await call.accept(view.id)
            watch = TaskWatch(self._platform, self._tasks.queue, call.principal.tenant, view, request.after_sequence)
            self._watches.add(watch)
            try:
                async with contextlib.aclosing(watch.events()) as events:
                    async for event in events:
                        await context.write(replies.watch_event(event))
            finally:
                self._watches.discard(watch)

        await self._calls.run(context, WATCH, work)


def _wait_of(request: SubmitRequest) -> float:
    seconds = request.wait_seconds
    if not math.isfinite(seconds) or seconds < 0:
        raise ApiError("invalid_value", "wait_seconds must be 0 or more", param="wait_seconds")
    return min(seconds, MAX_WAIT_SECONDS)


def _state_of(request: ListRequest) -> State | None:
    if not request.state:
        return None
    for state in STATES:
        if state == request.state:
            return state
    raise ApiError("invalid_value", f"state must be one of {', '.join(STATES)}", param="state")


def _since_of(request: ListRequest) -> int:
    if not request.HasField("since"):
        return 0
    rfc3339_of(request.since, "since")
    return max(0, request.since.ToMilliseconds())


def _limit_of(request: ListRequest) -> int:
    if not request.HasField("limit"):
        return DEFAULT_PAGE
    if not 1 <= request.limit <= MAX_PAGE:
        raise ApiError("invalid_value", f"limit must be between 1 and {MAX_PAGE}", param="limit")
    return request.limit
