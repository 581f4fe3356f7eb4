"""Dispatching queued tasks: plan, history where the plan needs it, RunAttempt messages, first in first out.

A fixed number of slots work on the queue; each keeps its task until it is dispatched or settled. Dispatch is
idempotent (message ids from task and attempt), so a takeover may repeat it. One rule: a task leaves INGRESS only after
its attempts stand in WORK or its terminal message stands in EVENTS.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque

import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError, NoAnswerError, QueueFullError, RequestRefusedError
from collegium_bus.ingress import IngressShard
from collegium_bus.settle import settle
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode, journey
from collegium_contracts.errors import ContractError, TaskError, kind_of
from collegium_contracts.journey import template
from collegium_contracts.messages import RunAttempt, SettledMessage, TaskDispatched, TaskSubmitted
from collegium_contracts.requests import TurnsReply, TurnsRequest
from collegium_contracts.state import ModelRecord
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry import names
from collegium_telemetry.tracing import Hop

from collegium_router.plan import Planned, make_plan, max_tokens
from collegium_router.settlement import canceled, expired, failed

log = structlog.get_logger(__name__)

SLOTS = 64
EXPIRY_SECONDS = 0.25


class Queued(msgspec.Struct, eq=False):
    """One task in the queue: its message, where it stands, and whether somebody wants it ended.

    ``replayed`` marks a task that stood when this owner took the shard: it may have been dispatched, and even settled,
    before, beyond what the broker's duplicate window remembers.
    """

    submitted: TaskSubmitted
    delivery: Delivery
    shard: IngressShard
    replayed: bool
    cancel_reason: str = ""
    taken: bool = False


class Dispatcher:
    """The queue of all shards that this router owns, and the slots that empty it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._models: dict[str, ModelRecord] = {}
        # Attempts sent to each model of late, halved every second: an estimate of what is outstanding, good enough to
        # break ties between equals, and free of a subscription to everything that settles.
        self._recent: Counter[str] = Counter()
        self._queue: deque[Queued] = deque()
        self._by_task: dict[str, Queued] = {}
        self._wake = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def queued(self) -> int:
        """How many tasks wait."""
        return len(self._by_task)

    def use_roster(self, models: list[ModelRecord]) -> None:
        """Swaps the roster."""
        self._models = {model.name: model for model in models}

    def start(self) -> None:
        """Starts the slots."""
        self._tasks = [asyncio.create_task(self._slot(), name=f"dispatch-{number}") for number in range(SLOTS)]
        self._tasks.append(asyncio.create_task(self._expire(), name="dispatch-expiry"))

    async def stop(self) -> None:
        """Stops the slots; what they held stays in INGRESS for the next owner."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def receive(self, shard: IngressShard, delivery: Delivery) -> None:
        """Queues one INGRESS message."""
        try:
            message = journey.decode(delivery.payload) if not delivery.header(s.H_CLAIM) else None
        except ContractError as error:
            self._tasks.append(asyncio.create_task(self._bury(shard, delivery, error)))
            return
        if message is None:
            self._tasks.append(asyncio.create_task(self._receive_claim(shard, delivery)))
        else:
            self._enqueue(shard, delivery, message)

    def _enqueue(self, shard: IngressShard, delivery: Delivery, message: object) -> None:
        if not isinstance(message, TaskSubmitted):
            error = ContractError(f"{type(message).__name__} on {delivery.subject}, where only TaskSubmitted may stand")
            self._tasks.append(asyncio.create_task(self._bury(shard, delivery, error)))
            return
        queued = Queued(message, delivery, shard, replayed=not shard.caught_up.is_set())
        self._by_task[message.task.id] = queued
        self._queue.append(queued)
        failpoint("router.after-receive")
        self._wake.release()

    async def _receive_claim(self, shard: IngressShard, delivery: Delivery) -> None:
        while True:
            try:
                payload = await self._platform.claims.get(delivery.header(s.H_CLAIM))
                self._enqueue(shard, delivery, journey.decode(payload))
            except ContractError as error:
                await self._bury(shard, delivery, error)
            except BusError as error:
                log.warning("claim not redeemed, trying again", subject=delivery.subject, error=str(error))
                await asyncio.sleep(random.uniform(0.2, 2.0))  # noqa: S311 - jitter
                continue
            return

    async def _bury(self, shard: IngressShard, delivery: Delivery, error: ContractError) -> None:
        while not await self._platform.dead_letters.bury(delivery, error.code, str(error)):  # noqa: ASYNC110 - a retry
            await asyncio.sleep(random.uniform(0.5, 3.0))  # noqa: S311 - jitter
        shard.finish(delivery)

    def drop_shard(self, shard: IngressShard) -> None:
        """Forgets the queue of a shard that another router owns now."""
        for task_id, queued in list(self._by_task.items()):
            if queued.shard is shard:
                queued.taken = True
                del self._by_task[task_id]

    def cancel(self, task_id: str, reason: str) -> None:
        """Marks a queued task; its slot or the expiry round settles it."""
        if (queued := self._by_task.get(task_id)) is not None:
            queued.cancel_reason = reason

    async def _slot(self) -> None:
        while True:
            await self._wake.acquire()
            queued = self._queue.popleft()
            if queued.taken:
                continue
            queued.taken = True
            await self._until_done(queued)
            self._by_task.pop(queued.submitted.task.id, None)
            failpoint("router.before-purge")
            queued.shard.finish(queued.delivery)

    async def _until_done(self, queued: Queued) -> None:
        """Dispatches or settles one task, however long the broker takes."""
        task = queued.submitted.task
        hop = self._platform.tracing.hop(
            "router dispatch",
            "consumer",
            queued.delivery.header(s.TRACEPARENT),
            {names.MESSAGING_DESTINATION: template("TaskSubmitted"), names.TASK: task.id},
        )
        try:
            while True:
                try:
                    if await self._step(queued, hop):
                        return
                except QueueFullError:
                    await asyncio.sleep(random.uniform(0.005, 0.03))  # noqa: S311 - jitter
                except BusError as error:
                    log.warning("dispatch failed, trying again", task=task.id, error=str(error))
                    await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter
        finally:
            hop.end()

    async def _step(self, queued: Queued, hop: Hop) -> bool:
        """One try; false where it has to be made again."""
        submitted = queued.submitted
        task = submitted.task
        now = self._platform.now_ms()
        if queued.cancel_reason:
            reason = "client_disconnected" if queued.cancel_reason == "client_disconnected" else "canceled"
            return await self._settle(canceled(task, now, reason), hop)
        if now >= task.deadline_ms:
            return await self._settle(expired(task, now), hop)
        if queued.replayed and await self._stands(submitted):
            return True
        planned = make_plan(submitted, list(self._models.values()), self._recent)
        if isinstance(planned, TaskError):
            return await self._settle(failed(task, planned, now), hop)
        history: TurnsReply | None = None
        if task.conversation:
            turns = await self._turns(submitted, hop)
            if isinstance(turns, TaskError):
                return await self._settle(failed(task, turns, now), hop)
            if turns is None:
                return False
            history = turns
        failpoint("router.before-dispatch")
        await self._dispatch(submitted, planned, history, hop)
        failpoint("router.after-dispatch")
        return True

    async def _dispatch(self, submitted: TaskSubmitted, planned: Planned, history: TurnsReply | None, hop: Hop) -> None:
        task = submitted.task
        headers = {s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant}
        for attempt in planned.attempts:
            model = self._models[attempt.model]
            bound = max_tokens(submitted.sampling.max_tokens, model)
            stream = submitted.sampling.stream and planned.plan == "single"
            run = RunAttempt(
                task=task,
                attempt=attempt,
                prompt=submitted.prompt,
                sampling=msgspec.structs.replace(submitted.sampling, max_tokens=bound, stream=stream),
                prompt_bytes=submitted.prompt_bytes + (history.history_bytes if history is not None else 0),
                history=history.history if history is not None else None,
            )
            await self._platform.publisher.publish(
                s.work(attempt.pool, task.priority),
                encode(run),
                message_id=f"{task.id}.{attempt.number}",
                headers=headers,
            )
            self._recent[attempt.model] += 1
        if task.surface == "tasks" or planned.plan != "single":
            changed = TaskDispatched(
                task=task,
                plan=planned.plan,
                models=[attempt.model for attempt in planned.attempts],
                at_ms=self._platform.now_ms(),
            )
            await self._platform.publisher.publish(
                s.task_changed(task.tenant, task.id),
                encode(changed),
                message_id=f"{task.id}.dispatched",
                headers=headers,
            )

    async def _turns(self, submitted: TaskSubmitted, hop: Hop) -> TurnsReply | TaskError | None:
        """Asks context for the conversation; none where it did not answer and the task may still wait for it."""
        task = submitted.task
        try:
            return await ask(
                self._platform.connection,
                s.SVC_CONTEXT_TURNS,
                TurnsRequest(tenant=task.tenant, conversation=task.conversation),
                TurnsReply,
                timeout_seconds=3.0,
                traceparent=hop.traceparent,
            )
        except (NoAnswerError, RequestRefusedError) as error:
            if isinstance(error, RequestRefusedError) and not kind_of(error.code).retryable:
                return TaskError(code=error.code, message=error.message, param=error.param)
            log.warning("conversation not readable yet", task=task.id, error=str(error))
            await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter
            return None

    async def _stands(self, submitted: TaskSubmitted) -> bool:
        task = submitted.task
        return await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None

    async def _settle(self, settled: SettledMessage, hop: Hop) -> bool:
        await settle(self._platform.publisher, settled, settler="router", traceparent=hop.traceparent)
        return True

    async def _expire(self) -> None:
        """Settles, out of turn, what expired or was canceled while the slots are busy with a full pool."""
        rounds = 0
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            rounds += 1
            if rounds % int(1 / EXPIRY_SECONDS) == 0:
                self._recent = Counter({model: count // 2 for model, count in self._recent.items() if count > 1})
            now = self._platform.now_ms()
            for queued in list(self._by_task.values()):
                if not queued.taken and (queued.cancel_reason or now >= queued.submitted.task.deadline_ms):
                    queued.taken = True
                    await self._until_done(queued)
                    self._by_task.pop(queued.submitted.task.id, None)
                    queued.shard.finish(queued.delivery)
            self._tasks = [task for task in self._tasks if not task.done()]
