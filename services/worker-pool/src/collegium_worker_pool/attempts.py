"""Running one attempt: started, the call, the end, in that order, each stored before the next.

The order is the guarantee: AttemptStarted stands before the endpoint is called (so every call is at least listed), the
result stands before the message is acknowledged (so a killed worker's attempt comes again), and both are create-once
(so a late result of a stopped worker is refused by the stream itself). One rule: a call that was made is always booked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.settle import settle
from collegium_bus.work import WorkLoop
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode, journey
from collegium_contracts.content import encode_content
from collegium_contracts.errors import ContractError, TaskError, UndecodableMessageError
from collegium_contracts.journey import template
from collegium_contracts.messages import AttemptDiscarded, AttemptStarted, RunAttempt
from collegium_contracts.money import Usage
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_telemetry import names
from collegium_telemetry.tracing import Hop

from collegium_worker_pool import failures
from collegium_worker_pool.cancels import Cancels
from collegium_worker_pool.endpoints import Endpoint
from collegium_worker_pool.failures import CallFailed
from collegium_worker_pool.metering import meter
from collegium_worker_pool.outcome import CallEnd, call_usage, ended, settled, stop_reason_of
from collegium_worker_pool.tokens import TokenStream
from collegium_worker_pool.upstream import CallResult, Upstream
from collegium_worker_pool.wire import StreamedAnswer, request_body

log = structlog.get_logger(__name__)

# A second copy of a message may find the first copy's AttemptStarted under its own delivery number; it takes the next.
MAX_COPIES = 16


class AttemptRunner:
    """Handles the RunAttempt messages of the pools."""

    def __init__(
        self, platform: Platform, upstream: Upstream, endpoints: Mapping[str, Endpoint], cancels: Cancels
    ) -> None:
        self._platform = platform
        self._upstream = upstream
        self._endpoints = endpoints
        self._cancels = cancels
        self._worker = platform.connection.instance
        self._permits = {
            name: asyncio.Semaphore(endpoint.concurrency)
            for name, endpoint in endpoints.items()
            if endpoint.concurrency is not None
        }
        self.loops: dict[str, WorkLoop] = {}

    async def handle(self, delivery: Delivery) -> None:
        """Runs one attempt and acknowledges its message."""
        claim = delivery.header(s.H_CLAIM)
        run = journey.decode(await self._platform.claims.get(claim) if claim else delivery.payload)
        if not isinstance(run, RunAttempt):
            raise UndecodableMessageError(
                f"{type(run).__name__} on {delivery.subject}, where only RunAttempt may stand"
            )
        failpoint("worker-pool.after-claim")
        if (loop := self.loops.get(run.attempt.pool)) is not None:
            loop.extend_until(delivery, run.task.deadline_ms)
        hop = self._platform.tracing.hop(
            "worker-pool run attempt",
            "consumer",
            delivery.header(s.TRACEPARENT),
            {names.MESSAGING_DESTINATION: template("RunAttempt"), names.TASK: run.task.id},
        )
        with hop:
            await self._run(run, delivery, hop)
        failpoint("worker-pool.before-ack")
        delivery.ack()

    async def give_up(self, delivery: Delivery, error: Exception) -> None:
        """Ends an attempt whose handling failed on its last delivery, so that its task does not wait for ever."""
        claim = delivery.header(s.H_CLAIM)
        try:
            run = journey.decode(await self._platform.claims.get(claim) if claim else delivery.payload)
            if not isinstance(run, RunAttempt):
                return
            text = f"attempt {run.attempt.number} of task {run.task.id} failed {delivery.delivered} times in the worker"
            failed = TaskError(
                code="attempts_exhausted", message=f"{text} ({type(error).__name__}); see its dead letter"
            )
            end = CallEnd(usage=Usage(), duration_ms=0, error=failed, stop_reason="failed")
            hop = self._platform.tracing.hop("worker-pool give up", "consumer", delivery.header(s.TRACEPARENT))
            with hop:
                await self._finish(run, delivery.delivered, end, hop)
        except (ContractError, BusError) as failure:
            log.error("attempt could not be ended", subject=delivery.subject, error=str(failure))

    async def _run(self, run: RunAttempt, delivery: Delivery, hop: Hop) -> None:
        if delivery.delivered > 1 and await self._stands(run):
            return
        early = self._refusal(run)
        if early is not None:
            await self._finish(run, delivery.delivered, early, hop)
            return
        number = await self._begin(run, delivery.delivered, hop)
        if number is None:
            return
        failpoint("worker-pool.after-started")
        end = await self._call(run, number, hop)
        failpoint("worker-pool.after-result")
        await self._finish(run, number, end, hop)

    def _refusal(self, run: RunAttempt) -> CallEnd | None:
        """Ends an attempt before its call: canceled, past its deadline, or a model that is not configured here."""
        task = run.task
        reason = self._cancels.reason(task.id)
        nothing = Usage()
        if reason is not None:
            return CallEnd(usage=nothing, duration_ms=0, error=failures.canceled(task.id), stop_reason=reason)
        if self._platform.now_ms() >= task.deadline_ms:
            error = TaskError(
                code="deadline_exceeded", message=f"task {task.id} reached its deadline before a worker was free"
            )
            return CallEnd(usage=nothing, duration_ms=0, error=error, stop_reason="deadline")
        if run.attempt.model not in self._endpoints:
            error = failures.not_configured(run.attempt.model)
            return CallEnd(usage=nothing, duration_ms=0, error=error, stop_reason="failed")
        return None

    async def _begin(self, run: RunAttempt, delivered: int, hop: Hop) -> int | None:
        """Stores AttemptStarted and returns the delivery number it stands under; none where the attempt has ended."""
        task, attempt = run.task, run.attempt
        for number in range(delivered, delivered + MAX_COPIES):
            started = AttemptStarted(
                task=task, attempt=attempt, delivery=number, worker=self._worker, at_ms=self._platform.now_ms()
            )
            try:
                await self._platform.publisher.publish(
                    s.attempt_started(task.tenant, task.id, attempt.number, number),
                    encode(started),
                    message_id=f"{task.id}.{attempt.number}.{number}.started.{self._worker}",
                    headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                    create_once=True,
                )
            except AlreadyStandsError:
                if await self._stands(run):
                    return None
            else:
                return number
        raise UndecodableMessageError(f"attempt {attempt.number} of task {task.id} was started {MAX_COPIES} times")

    async def _stands(self, run: RunAttempt) -> bool:
        """Whether the attempt has ended or its task is settled."""
        task = run.task
        if await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None:
            return True
        if run.attempt.of == 1:
            return False
        subject = s.attempt_ended(task.tenant, task.id, run.attempt.number)
        return await self._platform.direct.last(s.EVENTS, subject) is not None

    async def _call(self, run: RunAttempt, delivery: int, hop: Hop) -> CallEnd:
        """Calls the endpoint within the deadline, and turns whatever happens into an end."""
        loop = asyncio.get_running_loop()
        task, model = run.task, run.attempt.model
        endpoint = self._endpoints[model]
        began = loop.time()
        left = (task.deadline_ms - self._platform.now_ms()) / 1000
        streamed = StreamedAnswer()
        scope = asyncio.timeout_at(began + min(left, endpoint.timeout_seconds))
        span = self._model_span(run, endpoint, hop)
        result: CallResult | None = None
        error: TaskError | None = None
        self._cancels.watch(task.id, scope)
        try:
            async with scope, self._permit(model):
                result = await self._speak(run, delivery, endpoint, streamed, span)
        except CallFailed as failed:
            error = failed.error
        except TimeoutError:
            error = self._why(run, endpoint, left)
        finally:
            self._cancels.unwatch(task.id, scope)
        end = self._end(run, result, streamed, error, int((loop.time() - began) * 1000))
        self._close_span(span, end, result)
        return end

    def _permit(self, model: str) -> contextlib.AbstractAsyncContextManager[object]:
        return self._permits.get(model) or contextlib.nullcontext()

    async def _speak(
        self, run: RunAttempt, delivery: int, endpoint: Endpoint, streamed: StreamedAnswer, span: Hop
    ) -> CallResult:
        task, keyring = run.task, self._platform.keyring
        prompt = keyring.open(task.tenant, run.prompt)
        history = keyring.open(task.tenant, run.history) if run.history is not None else None
        body = request_body(endpoint.upstream_model, prompt, history, run.sampling)
        headers = {"x-request-id": task.id, "x-collegium-attempt": f"{task.id}.{run.attempt.number}.{delivery}"}
        if span.sampled:
            headers[s.TRACEPARENT] = span.traceparent
        if not run.sampling.stream:
            return await self._upstream.complete(run.attempt.model, endpoint, body, headers)
        tokens = TokenStream(self._platform, run, delivery)
        checkpoints = asyncio.create_task(tokens.keep_checkpoints())
        try:
            return await self._upstream.stream(
                run.attempt.model, endpoint, body, headers, into=streamed, on_text=tokens.feed
            )
        finally:
            checkpoints.cancel()
            tokens.flush()

    def _why(self, run: RunAttempt, endpoint: Endpoint, left: float) -> TaskError:
        """Says which bound ended the call: a cancellation, the task's deadline, or the model's own timeout."""
        if self._cancels.reason(run.task.id) is not None:
            return failures.canceled(run.task.id)
        if left <= endpoint.timeout_seconds:
            return failures.deadline(run.task.id, run.attempt.model)
        return failures.timed_out(run.attempt.model, endpoint.timeout_seconds)

    def _end(
        self,
        run: RunAttempt,
        result: CallResult | None,
        streamed: StreamedAnswer,
        error: TaskError | None,
        duration_ms: int,
    ) -> CallEnd:
        tenant = run.task.tenant
        if result is not None:
            output = encode_content(result.answer)
            usage = meter(run.attempt, result.usage, run.prompt_bytes, _text_bytes(result))
            return CallEnd(
                usage=usage,
                duration_ms=duration_ms,
                output=self._platform.keyring.seal(tenant, output),
                stop_reason=stop_reason_of(result.answer),
            )
        assert error is not None, "a call ends with a result or an error"
        text = streamed.text
        usage = meter(run.attempt, streamed.usage, run.prompt_bytes, len(text.encode())) if text else Usage()
        partial = self._platform.keyring.seal(tenant, encode_content(streamed.answer())) if text else None
        reason = "failed"
        if error.code == "canceled":
            reason = self._cancels.reason(run.task.id) or "canceled"
        elif error.code == "deadline_exceeded":
            reason = "deadline"
        return CallEnd(usage=usage, duration_ms=duration_ms, output=partial, error=error, stop_reason=reason)

    async def _finish(self, run: RunAttempt, delivery: int, end: CallEnd, hop: Hop) -> None:
        """Stores the result: settles a plan of one, ends a member of a larger one; what is refused is waste."""
        attempt = run.attempt
        now = self._platform.now_ms()
        if attempt.of == 1:
            stored = await settle(
                self._platform.publisher,
                settled(run, delivery, end, now),
                settler=f"{attempt.number}.{delivery}.{self._worker}",
                traceparent=hop.traceparent,
            )
        else:
            stored = await self._end_member(run, delivery, end, now, hop)
        if not stored and end.duration_ms:
            await self._discard(run, delivery, end, now, hop)

    async def _end_member(self, run: RunAttempt, delivery: int, end: CallEnd, now_ms: int, hop: Hop) -> bool:
        task, attempt = run.task, run.attempt
        try:
            await self._platform.publisher.publish(
                s.attempt_ended(task.tenant, task.id, attempt.number),
                encode(ended(run, delivery, end, now_ms)),
                message_id=f"{task.id}.{attempt.number}.{delivery}.ended.{self._worker}",
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                create_once=True,
            )
        except AlreadyStandsError:
            return False
        return True

    async def _discard(self, run: RunAttempt, delivery: int, end: CallEnd, now_ms: int, hop: Hop) -> None:
        task, attempt = run.task, run.attempt
        call = msgspec.structs.replace(call_usage(run, delivery, end), wasted=True)
        log.info("result came too late and is booked as waste", task=task.id, attempt=attempt.number, delivery=delivery)
        with contextlib.suppress(AlreadyStandsError):
            await self._platform.publisher.publish(
                s.attempt_discarded(task.tenant, task.id, attempt.number, delivery),
                encode(AttemptDiscarded(task=task, attempt=attempt, call=call, at_ms=now_ms)),
                message_id=f"{task.id}.{attempt.number}.{delivery}.discarded",
                headers={s.TRACEPARENT: hop.traceparent, s.H_TENANT: task.tenant},
                create_once=True,
            )

    def _model_span(self, run: RunAttempt, endpoint: Endpoint, hop: Hop) -> Hop:
        if not hop.sampled:
            return hop
        return self._platform.tracing.hop(
            f"chat {run.attempt.model}",
            "client",
            hop.traceparent,
            {
                names.OPERATION_NAME: "chat",
                names.PROVIDER_NAME: endpoint.provider,
                names.REQUEST_MODEL: run.attempt.model,
                names.REQUEST_MAX_TOKENS: run.sampling.max_tokens or 0,
                names.TENANT: run.task.tenant,
                names.TASK: run.task.id,
                names.PLAN: run.attempt.plan,
                names.RANK: run.attempt.rank,
                names.PRIORITY: run.task.priority,
            },
        )

    def _close_span(self, span: Hop, end: CallEnd, result: CallResult | None) -> None:
        if not span.sampled:
            return
        span.set(names.USAGE_INPUT_TOKENS, end.usage.input_tokens)
        span.set(names.USAGE_OUTPUT_TOKENS, end.usage.output_tokens)
        if result is not None:
            span.set(names.RESPONSE_MODEL, result.model)
        if end.error is not None:
            span.fail(end.error.code)
        span.end()


def _text_bytes(result: CallResult) -> int:
    return sum(len((choice.text or "").encode()) for choice in result.answer.choices)
