"""``POST /v1/embeddings``: a door of its own, plain ASGI, onto the journey that chats take.

What a call may cost is held before, the call is a worker's attempt and booked once, whatever dies meanwhile, and the
key of a request belongs to its task. One rule: no vector is shown that was not stored as the task's end.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import msgspec
from collegium_contracts import ids
from collegium_contracts.embedding import EmbeddingOutput, decode_output
from collegium_contracts.messages import SettledMessage, TaskCompleted, TaskRef, TaskSubmitted
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_gateway.admission.embedding import (
    EmbeddingOptions,
    EmbeddingRequest,
    away_until_ms,
    decode_embedding,
    embedding_submission,
    shown,
)
from collegium_gateway.admission.idempotency import HEADER
from collegium_gateway.admission.requests import parse
from collegium_gateway.chat.door import adding, describe, refusal
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Headers, Receive, Scope, Send
from collegium_gateway.http.keyed import REPLAYED_HEADER
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.keyed import Asking, KeyedTask, KeyedTasks
from collegium_gateway.tasks.views import answer_of, collegium_of, result_headers

PATH: Final = "/v1/embeddings"
# Numbers that are written before others get their turn: writing them takes some milliseconds.
NUMBERS_AT_ONCE: Final = 32_768
RETRY_SECONDS: Final = 2.0
# What an attempt may end with while its embedder is away.
AWAY: Final = frozenset(
    {"upstream_unreachable", "upstream_timeout", "upstream_error", "upstream_garbage", "upstream_cut", "circuit_open"}
)


class EmbeddingDoor:
    """The embeddings endpoint as an ASGI callable."""

    def __init__(self, platform: Platform, directory: Directory, tasks: Tasks, keyed: KeyedTasks) -> None:
        self._platform = platform
        self._directory = directory
        self._tasks = tasks
        self._keyed = keyed
        self._max_body_bytes = platform.settings.http.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        hop, common = asgi.begin(self._platform.tracing, scope, "POST /v1/embeddings")
        principal: Principal | None = None
        try:
            principal = self._directory.keys.authenticate(asgi.header(scope, b"authorization"))
            principal.need("chat")
            body = await asgi.read_body(scope, receive, self._max_body_bytes)
            request = parse(decode_embedding, body)
            submitted = self._prepare(principal, request)
            settled, trace_id = await self._settled(scope, principal, body, submitted, hop, common)
            await self._answer(request, settled, trace_id, send, common)
        except ApiError as error:
            hop.fail(error.code)
            common += self._tasks.admission.standing_headers(principal, common)
            await asgi.send_error(send, error, common)
        finally:
            hop.end()

    def _prepare(self, principal: Principal, request: EmbeddingRequest) -> TaskSubmitted:
        now = self._platform.now_ms()
        submitted = embedding_submission(
            request,
            principal,
            self._directory.models,
            self._platform.keyring,
            task_id=ids.task_id(now, os.urandom(10)),
            reply=self._tasks.replica,
            now_ms=now,
        )
        options = request.collegium or EmbeddingOptions()
        return self._tasks.gating.take(submitted, principal, options.gates, options.verified)

    async def _settled(
        self, scope: Scope, principal: Principal, body: bytes, submitted: TaskSubmitted, hop: Hop, common: Headers
    ) -> tuple[SettledMessage, str]:
        keyed: KeyedTask | None = None
        if (key := asgi.header(scope, HEADER)) is not None:
            keyed = await self._keyed.begin(principal, Asking(key, "POST", scope["path"], body), submitted, hop)
            submitted = keyed.submitted
            if keyed.replayed:
                common.append(REPLAYED_HEADER)
        if hop.sampled:
            describe(hop, submitted)
        if keyed is not None:
            return await keyed.complete(hop, adding(common)), keyed.trace_id
        self._refuse_away(submitted.task)
        return await self._tasks.complete(submitted, hop, on_rates=adding(common)), hop.trace_id

    def _refuse_away(self, task: TaskRef) -> None:
        """Raises ApiError where every embedder concerned is left alone: who wants vectors rather hears it at once."""
        now = self._platform.now_ms()
        until_ms = away_until_ms(task, self._directory.models, self._directory.breakers, now)
        if until_ms:
            text = f"embedder {task.model} failed often of late and is left alone for a while; ask again"
            raise ApiError("embedder_unavailable", text, param="model", retry_after_seconds=(until_ms - now) / 1000)

    async def _answer(
        self, request: EmbeddingRequest, settled: SettledMessage, trace_id: str, send: Send, common: Headers
    ) -> None:
        if not isinstance(settled, TaskCompleted):
            raise _refusal(settled)
        answer = answer_of(self._platform.keyring, settled.task.tenant, settled.output)
        assert answer is not None, "a completed task has an output"
        output = decode_output(answer.choices[0].text or "")
        body = {
            "object": "list",
            "data": await _written(output, request.encoding_format),
            "model": settled.model,
            "usage": {"prompt_tokens": settled.usage.input_tokens, "total_tokens": settled.usage.input_tokens},
            "collegium": collegium_of(settled, trace_id),
        }
        await asgi.send_json(send, 200, body, [*common, *result_headers(settled)])


async def _written(output: EmbeddingOutput, encoding_format: str) -> list[msgspec.Raw]:
    """Writes the vectors as JSON, with a pause after every few."""
    written: list[msgspec.Raw] = []
    at_once = max(1, NUMBERS_AT_ONCE // output.dimensions)
    for item in shown(output, encoding_format):
        written.append(msgspec.Raw(_encode(item)))
        if len(written) % at_once == 0:
            await asyncio.sleep(0)
    return written


def _refusal(settled: SettledMessage) -> ApiError:
    """Returns the error of a task that has no vectors: an embedder that is away is one error, however it is away."""
    error = refusal(settled)
    if error.code not in AWAY:
        return error
    text = f"embedder {settled.task.model} does not answer now ({error.code}); ask again"
    seconds = error.retry_after_seconds or RETRY_SECONDS
    return ApiError("embedder_unavailable", text, retry_after_seconds=seconds, task_id=error.task_id)


_encode: Any = msgspec.json.Encoder().encode
