"""Probing an endpoint by real calls: one after another, each short, each booked, the whole within a bound.

The calls are the operator's cost: each begins with AttemptStarted and ends with AttemptDiscarded, as any call that
settles nothing, under one task id and the operator's name. One rule: nothing that an endpoint said is kept but whether
its form was right.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from collegium_bus.errors import AlreadyStandsError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.callnote import write_note
from collegium_contracts.codec import encode
from collegium_contracts.identity import OPERATOR_TENANT
from collegium_contracts.messages import AttemptDiscarded, AttemptRef, AttemptStarted, AttemptUsage, TaskRef
from collegium_contracts.money import Usage
from collegium_contracts.probing import ProbeFound, ProbeName
from collegium_contracts.roster_requests import EndpointProbe, EndpointProbed
from collegium_contracts.state import ModelRecord
from collegium_runtime.platform import Platform
from collegium_settings import SettingsError
from collegium_settings.roster import read_spec, record

from collegium_worker_pool.added import checks
from collegium_worker_pool.added.book import endpoint_of
from collegium_worker_pool.endpoints.endpoint_health import asked
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.metering import estimate, meter
from collegium_worker_pool.upstream.upstream import CallResult, Upstream
from collegium_worker_pool.upstream.wire import StreamedAnswer

CALL_SECONDS: Final = 12.0
TOTAL_SECONDS: Final = 60.0
PROJECT: Final = "probes"
# What the prompts of the probes are at most, where an endpoint does not count.
PROMPT_TOKENS: Final = 128


class Probing:
    """Probes endpoints for whoever adds models."""

    def __init__(self, platform: Platform, upstream: Upstream) -> None:
        self._platform = platform
        self._upstream = upstream

    async def probe(self, wanted: EndpointProbe) -> EndpointProbed:
        """Returns what a model's endpoints can do; raises RequestRefusedError where they may not be called."""
        try:
            model = read_spec(wanted.spec)
        except SettingsError as error:
            raise RequestRefusedError("invalid_value", str(error)) from None
        endpoint = endpoint_of(model, self._platform.settings.roster)
        return await _Probe(self._platform, self._upstream, wanted.id, record(model), endpoint).run()


class _Probe:
    """The calls of one probe, counted from 1."""

    def __init__(
        self, platform: Platform, upstream: Upstream, task_id: str, model: ModelRecord, endpoint: Endpoint
    ) -> None:
        self._platform = platform
        self._upstream = upstream
        self._model = model
        self._endpoint = endpoint
        now_ms = platform.now_ms()
        deadline_ms = now_ms + int(TOTAL_SECONDS * 1000)
        self._task = TaskRef(
            id=task_id, tenant=OPERATOR_TENANT, created_at_ms=now_ms, deadline_ms=deadline_ms, model=model.name,
            project=PROJECT,
        )  # fmt: skip
        self._until = time.monotonic() + TOTAL_SECONDS
        self._calls = 0
        self._picos = 0

    async def run(self) -> EndpointProbed:
        found: list[ProbeFound] = []
        counted: list[bool] = []
        for name in ("chat", "stream"):
            one, result = await self._try(name, self._endpoint, 0, needed=True)
            found.append(one)
            if result is not None:
                counted.append(result.usage is not None and result.usage.prompt_tokens > 0)
        found.append(_usage_found(counted))
        if found[0].state == "passed":
            for capability, name in checks.CAPABILITIES.items():
                needed = capability in self._model.capabilities
                found.append((await self._try(name, self._endpoint, 0, needed=needed))[0])
            found.append(await self._context())
        for place, replica in enumerate(self._endpoint.replicas[1:], 1):
            found.append((await self._try("chat", replica, place, needed=True))[0])
        return EndpointProbed(found=found, calls=self._calls, cost_usd_picos=self._picos)

    async def _context(self) -> ProbeFound:
        _, listed = await asked(self._upstream.pool_of(self._endpoint), self._endpoint)
        return checks.context_found(self._model.context_tokens, listed)

    async def _try(
        self, name: ProbeName, endpoint: Endpoint, place: int, *, needed: bool
    ) -> tuple[ProbeFound, CallResult | None]:
        left = self._until - time.monotonic()
        if left <= 0:
            text = f"not tried: the probes took {TOTAL_SECONDS:g} s"
            return ProbeFound(name=name, state="failed", endpoint=place, needed=needed, detail=text), None
        began = time.monotonic()
        result: CallResult | None = None
        into = StreamedAnswer()
        code = detail = ""
        attempt = await self._begin()
        try:
            async with asyncio.timeout(min(left, CALL_SECONDS)):
                result = await self._call(name, endpoint, into)
            detail = checks.amiss(name, result.answer, result.logprob)
        except CallFailed as failed:
            code, detail = failed.error.code, failed.error.message
        except TimeoutError:
            code, detail = "upstream_timeout", f"no answer within {min(left, CALL_SECONDS):.0f} s"
        duration_ms = int((time.monotonic() - began) * 1000)
        await self._end(attempt, result, into, duration_ms, code)
        state = "failed" if detail else "passed"
        found = ProbeFound(
            name=name, state=state, endpoint=place, needed=needed, detail=detail, duration_ms=duration_ms
        )
        return found, result

    async def _call(self, name: ProbeName, endpoint: Endpoint, into: StreamedAnswer) -> CallResult:
        body = checks.body(name, endpoint.upstream_model)
        headers = {"x-request-id": self._task.id}
        if name == "stream":
            return await self._upstream.stream(
                self._model.name, endpoint, body, headers, into=into, on_text=lambda _text: None
            )
        return await self._upstream.complete(self._model.name, endpoint, body, headers, into=into)

    async def _begin(self) -> AttemptRef:
        self._calls += 1
        attempt = AttemptRef(
            number=self._calls, of=self._calls, model=self._model.name, rank=self._model.rank, pool=self._model.pool,
            price=self._model.price, charge=self._model.charge,
        )  # fmt: skip
        task = self._task
        started = AttemptStarted(
            task=task, attempt=attempt, delivery=1, worker=self._platform.instance, at_ms=self._platform.now_ms()
        )
        await self._platform.publisher.publish(
            s.attempt_started(task.tenant, task.id, attempt.number, 1),
            encode(started),
            message_id=f"{task.id}.{attempt.number}.1.started.{self._platform.instance}",
            headers={s.H_TENANT: task.tenant},
            create_once=True,
        )
        return attempt

    async def _end(
        self, attempt: AttemptRef, result: CallResult | None, into: StreamedAnswer, duration_ms: int, code: str
    ) -> None:
        """Books the call: as its endpoint counted, by a bound where it did not, at nothing where it never went out."""
        if result is not None and result.usage is not None:
            usage = meter(attempt, result.usage)
        elif result is not None or into.pieces or (into.is_sent and code == "upstream_timeout"):
            written = checks.MAX_TOKENS if result is not None or into.pieces else 0
            usage = estimate(attempt, PROMPT_TOKENS, written, bound=checks.MAX_TOKENS, pieces=into.pieces)
        else:
            usage = Usage()
        self._picos += usage.cost_usd_picos
        call = AttemptUsage(
            number=attempt.number, delivery=1, model=attempt.model, rank=attempt.rank, usage=usage,
            duration_ms=duration_ms, succeeded=not code, wasted=True, error_code=code,
        )  # fmt: skip
        task = self._task
        ended = AttemptDiscarded(task=task, attempt=attempt, call=call, at_ms=self._platform.now_ms())
        with contextlib.suppress(AlreadyStandsError):
            await self._platform.publisher.publish(
                s.attempt_discarded(task.tenant, task.id, attempt.number, 1),
                encode(ended),
                message_id=f"{task.id}.{attempt.number}.1.discarded",
                headers={s.H_TENANT: task.tenant, s.H_CALL: write_note(call)},
                create_once=True,
            )


def _usage_found(counted: list[bool]) -> ProbeFound:
    """Judges whether calls were counted, plain and streamed: what is not counted is billed by an estimate."""
    if not counted:
        return ProbeFound(name="usage", state="skipped", detail="no call was answered")
    if all(counted):
        return ProbeFound(name="usage", state="passed")
    return ProbeFound(name="usage", state="failed", detail="an answer came without a count of its tokens")
