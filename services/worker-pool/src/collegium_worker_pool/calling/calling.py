"""One call of an attempt: within its bounds, streamed where asked for, and turned into an end, whatever happens.

Not here: what the end means for the attempt (attempts). One rule: a call ends at the task's deadline, at the model's
own timeout, or when its task is canceled, whichever comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec
import structlog
from collegium_bus.embed import EmbedClient
from collegium_contracts import subjects as s
from collegium_contracts.content import Answer, encode_content
from collegium_contracts.envelope import held
from collegium_contracts.errors import TaskError
from collegium_contracts.experiments import INSTRUCTION_PURPOSE
from collegium_contracts.messages import RunAttempt
from collegium_contracts.money import Usage
from collegium_contracts.wording import words_opened
from collegium_learning.prompts.asking import turns_of
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about
from collegium_telemetry import names
from collegium_telemetry.hop import Hop

from collegium_worker_pool.calling.cancels import Cancels
from collegium_worker_pool.calling.embedding import EmbeddingCaller
from collegium_worker_pool.calling.gating import AnswerGates, GatedAnswer
from collegium_worker_pool.calling.measuring import OPERATIONS, Measures
from collegium_worker_pool.calling.outcome import CallEnd, stop_reason_of
from collegium_worker_pool.calling.tokens import TokenStream
from collegium_worker_pool.endpoints.affinity import beginning_of
from collegium_worker_pool.endpoints.breakers import Breakers
from collegium_worker_pool.endpoints.spreading import Spreader
from collegium_worker_pool.students.heads import PROVIDER, Heads
from collegium_worker_pool.students.prompts import Prompts
from collegium_worker_pool.upstream import failures
from collegium_worker_pool.upstream.counting import count_prompt, count_tokens
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.metering import UpstreamUsage, estimate, meter
from collegium_worker_pool.upstream.places import Place
from collegium_worker_pool.upstream.upstream import CallResult, Upstream
from collegium_worker_pool.upstream.wire import StreamedAnswer, joined, output_bound, request_body

log = structlog.get_logger(__name__)

# What ended a call from this side.
_ENDED_HERE = frozenset({"canceled", "deadline_exceeded", "upstream_timeout"})


class Caller:
    """Calls endpoints for attempts. ``endpoints`` may be swapped while calls run."""

    def __init__(
        self,
        platform: Platform,
        upstream: Upstream,
        endpoints: Mapping[str, Endpoint],
        cancels: Cancels,
        breakers: Breakers,
        gates: AnswerGates,
        heads: Heads,
        prompts: Prompts,
    ) -> None:
        self._platform = platform
        self._upstream = upstream
        self._embedding = EmbeddingCaller(upstream, EmbedClient(platform.connection, platform.keyring))
        self._cancels = cancels
        self._breakers = breakers
        self._gates = gates
        self._heads = heads
        self._prompts = prompts
        self._spreader = Spreader(breakers)
        self._permits: dict[str, asyncio.Semaphore] = {}
        self._measures = Measures(platform.metrics)
        self._over_limit = platform.metrics.counters(
            names.METRIC_OVER_LIMIT, "Answers longer than the max_tokens that was sent", ("model",)
        )
        self.endpoints: Mapping[str, Endpoint] = {}
        self.use(endpoints)

    def use(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Swaps the endpoints; calls that run go on where they began."""
        for name, endpoint in endpoints.items():
            before = self.endpoints.get(name)
            if endpoint.concurrency is None:
                self._permits.pop(name, None)
            elif before is None or before.concurrency != endpoint.concurrency:
                self._permits[name] = asyncio.Semaphore(endpoint.concurrency)
        self.endpoints = dict(endpoints)

    def endpoint(self, model: str) -> Endpoint | None:
        """Returns where a model is, none where this worker cannot say."""
        return self.endpoints.get(self._prompts.base(model)) or self._heads.endpoint(model)

    async def call(self, run: RunAttempt, delivery: int, hop: Hop) -> CallEnd:
        """Calls the endpoint within the deadline, and turns whatever happens into an end."""
        loop = asyncio.get_running_loop()
        task, model = run.task, run.attempt.model
        endpoint = self.endpoint(model)
        assert endpoint is not None, "an attempt without an endpoint is refused before"
        began = loop.time()
        left = (task.deadline_ms - self._platform.now_ms()) / 1000
        streamed = StreamedAnswer()
        scope = asyncio.timeout_at(began + min(left, endpoint.timeout_seconds))
        span = self._model_span(run, endpoint, hop)
        result: CallResult | None = None
        error: TaskError | None = None
        gated: GatedAnswer | None = None
        self._cancels.watch(task.id, scope)
        try:
            async with scope, self._permit(model) as place:
                if task.gated is not None and task.kind == "chat":
                    await held(self._platform.keyring, task.tenant, task.gated.vault)
                    gated = await self._gates.of(task)
                    gated.place = place
                result = await self._speak(run, delivery, endpoint, streamed, span, gated)
        except CallFailed as failed:
            error = failed.error
        except TimeoutError:
            error = self._why(run, endpoint, left)
        finally:
            self._cancels.unwatch(task.id, scope)
            if gated is not None:
                gated.close()
        # What a gate blocks, or is too late for, the endpoint has said well enough.
        is_endpoints = error is not None and error.gate is None and (gated is None or gated.said is None)
        if error is None or not endpoint.replicas or not self._spreader.any_well(self.upstream_of(model), endpoint):
            self._breakers.ended(self.upstream_of(model), error.code if error is not None and is_endpoints else "")
        end = self._end(run, result, streamed, error, int((loop.time() - began) * 1000))
        if gated is not None:
            end = self._gated_end(run, end, gated, streamed.pieces)
        said = gated.said if gated is not None and result is None else result
        self._measures.ended(
            run,
            endpoint,
            end,
            said.model if said is not None else streamed.model,
            streamed.first_token_seconds if said is not None else None,
        )
        self._close_span(span, end, said)
        return end

    def health(self) -> dict[str, float]:
        """Returns how well each model answers, from 0 to 1."""
        return {name: self._spreader.health(name, endpoint) for name, endpoint in self.endpoints.items()}

    def upstream_of(self, model: str) -> str:
        """Returns under whose name a model's calls count: a prompt student's are its base's, at the same endpoint."""
        return self._prompts.base(model)

    def _permit(self, model: str) -> contextlib.AbstractAsyncContextManager[Place | None]:
        permits = self._permits.get(self._prompts.base(model))
        return Place(permits) if permits is not None else contextlib.nullcontext()

    async def _speak(
        self,
        run: RunAttempt,
        delivery: int,
        endpoint: Endpoint,
        streamed: StreamedAnswer,
        span: Hop,
        gated: GatedAnswer | None,
    ) -> CallResult:
        task, keyring = run.task, self._platform.keyring
        await held(keyring, task.tenant, run.prompt, run.history, run.sampling.words, run.instruction, *run.notes)
        prompt = keyring.open(task.tenant, run.prompt)
        headers = {"x-request-id": task.id, "x-collegium-attempt": f"{task.id}.{run.attempt.number}.{delivery}"}
        if span.sampled:
            headers[s.TRACEPARENT] = span.traceparent
        if task.kind == "embedding":
            return await self._embedding.call(run, endpoint, prompt, headers, streamed)
        history = keyring.open(task.tenant, run.history) if run.history is not None else None
        if endpoint.provider == PROVIDER:
            return await _concluded(gated, await self._heads.answer(run, prompt, history))
        notes = [keyring.open(task.tenant, note).decode() for note in run.notes]
        if shown := await self._prompts.shown(run):
            shown = await gated.examples(shown) if gated is not None else shown
            notes, history = [*notes, *shown[:1]], turns_of(shown, history)
        if notes and gated is not None:
            notes = await gated.knowledge(notes)
        sampling = words_opened(keyring, task.tenant, run.sampling)
        # Only a plan that is weighed has a use for them.
        logprobs = endpoint.tells_logprobs and run.attempt.plan != "single"
        first = self._instruction(run)
        streamed.teaches = task.collects_since_ms > 0
        likely = streamed.teaches and endpoint.tells_logprobs and run.attempt.rank == "teacher" and not sampling.stream

        async def at(one: Endpoint) -> CallResult:
            body = request_body(
                one.upstream_model, prompt, history, sampling, notes,
                instruction=first, logprobs=logprobs, likely=likely,
            )  # fmt: skip
            return await self._ask(run, delivery, one, body, headers, streamed, gated)

        if not endpoint.replicas:
            return await at(endpoint)
        beginning = beginning_of(joined(prompt, history, ()), sampling.tools)
        return await self._spreader.call(self._prompts.base(run.attempt.model), endpoint, beginning, streamed, at)

    async def _ask(
        self,
        run: RunAttempt,
        delivery: int,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[str, str],
        streamed: StreamedAnswer,
        gated: GatedAnswer | None,
    ) -> CallResult:
        model = run.attempt.model
        if not run.sampling.stream:
            return await _concluded(gated, await self._upstream.complete(model, endpoint, body, headers, into=streamed))
        tokens = TokenStream(self._platform, run, delivery)
        on_text = tokens.feed if gated is None else gated.stream(tokens.feed)
        try:
            said = await self._upstream.stream(model, endpoint, body, headers, into=streamed, on_text=on_text)
            return await _concluded(gated, said)
        finally:
            tokens.close()

    def _instruction(self, run: RunAttempt) -> str:
        if run.instruction is None:
            return ""
        return self._platform.keyring.open(run.task.tenant, run.instruction, INSTRUCTION_PURPOSE).decode()

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
            usage = self._usage(run, result.usage, result.answer, streamed.pieces)
            self._note_length(run, usage)
            return CallEnd(
                usage=usage,
                duration_ms=duration_ms,
                output=self._platform.keyring.seal(tenant, output),
                stop_reason=stop_reason_of(result.answer),
                logprob=result.logprob,
                confidence=result.confidence,
            )
        assert error is not None, "a call ends with a result or an error"
        text = streamed.text
        # An endpoint that was asked, and told to stop, counts the prompt although it had not said anything.
        cost = streamed.pieces > 0 or (streamed.is_sent and error.code in _ENDED_HERE)
        usage = self._usage(run, streamed.usage, streamed.answer(), streamed.pieces) if cost else Usage()
        partial = self._platform.keyring.seal(tenant, encode_content(streamed.answer())) if text else None
        reason = "failed"
        if error.code == "canceled":
            reason = self._cancels.reason(run.task.id) or "canceled"
        elif error.code == "deadline_exceeded":
            reason = "deadline"
        return CallEnd(usage=usage, duration_ms=duration_ms, output=partial, error=error, stop_reason=reason)

    def _gated_end(self, run: RunAttempt, end: CallEnd, gated: GatedAnswer, pieces: int) -> CallEnd:
        """Returns the end of a gated call: all that was said is booked, and only what was let go is kept."""
        said = gated.said
        if said is not None:
            usage = self._usage(run, said.usage, said.answer, pieces)
            end = msgspec.structs.replace(end, usage=usage, asked=gated.asked)
        if end.error is None:
            return end
        if end.error.gate is not None:
            return msgspec.structs.replace(end, output=None, stop_reason="gate")
        partial = gated.partial()
        kept = self._platform.keyring.seal(run.task.tenant, encode_content(partial)) if partial is not None else None
        return msgspec.structs.replace(end, output=kept)

    def _usage(self, run: RunAttempt, reported: UpstreamUsage | None, answer: Answer, pieces: int) -> Usage:
        """Returns the endpoint's count, or one made here."""
        if reported is not None:
            return meter(run.attempt, reported)
        keyring, tenant = self._platform.keyring, run.task.tenant
        prompt = count_prompt(keyring.open(tenant, run.prompt))
        if run.history is not None:
            prompt += count_prompt(keyring.open(tenant, run.history))
        prompt += sum(count_tokens(keyring.open(tenant, note).decode()) for note in run.notes)
        prompt += count_tokens(self._instruction(run))
        prompt += self._prompts.tokens(run.attempt.model)
        if run.task.kind == "embedding":
            return estimate(run.attempt, prompt, 0, bound=0, pieces=0)
        return estimate(run.attempt, prompt, _count_answer(answer), bound=output_bound(run), pieces=pieces)

    def _note_length(self, run: RunAttempt, usage: Usage) -> None:
        bound = output_bound(run)
        if usage.output_tokens > bound and not usage.estimated:
            model = run.attempt.model
            self._over_limit[model].inc()
            log.warning(
                "endpoint ignored max_tokens", task=run.task.id, model=model, sent=bound, got=usage.output_tokens
            )

    def _model_span(self, run: RunAttempt, endpoint: Endpoint, hop: Hop) -> Hop:
        if not hop.sampled:
            return hop
        return self._platform.tracing.hop(
            f"{OPERATIONS[run.task.kind]} {run.attempt.model}",
            "client",
            hop.traceparent,
            {
                names.OPERATION_NAME: OPERATIONS[run.task.kind],
                names.PROVIDER_NAME: endpoint.provider,
                names.REQUEST_MODEL: run.attempt.model,
                names.REQUEST_MAX_TOKENS: run.sampling.max_tokens or 0,
            }
            | about(run),
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


async def _concluded(gated: GatedAnswer | None, said: CallResult) -> CallResult:
    """Returns what was said as it may be given; raises CallFailed where a gate blocks it."""
    if gated is None:
        return said
    gated.said = said
    if gated.place is not None:
        gated.place.give_back()
    return msgspec.structs.replace(said, answer=await gated.conclude(said.answer))


def _count_answer(answer: Answer) -> int:
    texts = (choice.text or "" for choice in answer.choices)
    tools = (bytes(tool).decode() for choice in answer.choices for tool in choice.tool_calls or ())
    return sum(count_tokens(text) for text in (*texts, *tools))
