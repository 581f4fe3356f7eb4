"""One call of an embedder for an attempt: over HTTP to an endpoint, or by asking context for the bundled one.

An attempt is one call: what fails is tried again by the router, as another attempt that is booked too. One rule: a call
answers with one vector for each text, all of one length, or it has failed.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import sys
from array import array
from typing import Final

import msgspec
from collegium_bus.embed import EmbedClient, Embedded
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts.content import Answer, Choice
from collegium_contracts.embedding import FLOAT_BYTES, EmbeddingOutput, decode_texts, encode_output
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import RunAttempt

from collegium_worker_pool.upstream import failures
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.metering import UpstreamUsage
from collegium_worker_pool.upstream.upstream import CallResult, Upstream
from collegium_worker_pool.upstream.wire import StreamedAnswer

# The call as a whole has a bound of its own.
QUESTION_SECONDS: Final = 60.0


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    model: str
    input: list[str]
    encoding_format: str = ""
    dimensions: int | None = None


class _Item(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Reply(msgspec.Struct):
    data: list[_Item]
    model: str = ""
    usage: UpstreamUsage | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Reply).decode


class EmbeddingCaller:
    """Calls embedders."""

    def __init__(self, upstream: Upstream, context: EmbedClient) -> None:
        self._upstream = upstream
        self._context = context

    async def call(
        self, run: RunAttempt, endpoint: Endpoint, prompt: bytes, headers: dict[str, str], into: StreamedAnswer
    ) -> CallResult:
        """Embeds the texts of an attempt; raises CallFailed."""
        texts = decode_texts(prompt)
        model = run.attempt.model
        if endpoint.url:
            dimensions = run.sampling.dimensions or endpoint.dimensions
            body = _encode(_Request(endpoint.upstream_model, texts, "base64", dimensions))
            content = await self._upstream.post(model, endpoint, body, headers, into=into)
            return read_reply(model, content, len(texts))
        embedded = await self._ask(run, texts)
        usage = UpstreamUsage(prompt_tokens=sum(embedded.tokens))
        return _result(EmbeddingOutput(embedded.dimensions, embedded.vectors), usage, embedded.model)

    async def _ask(self, run: RunAttempt, texts: list[str]) -> Embedded:
        model = run.attempt.model
        try:
            return await self._context.embed(run.task.tenant, texts, model=model, timeout_seconds=QUESTION_SECONDS)
        except RequestRefusedError as error:
            if error.code == "body_too_large":
                raise CallFailed(TaskError(code=error.code, message=error.message, param=error.param)) from error
            raise CallFailed(failures.unreachable(model, error.code)) from error
        except BusError as error:
            raise CallFailed(failures.unreachable(model, type(error).__name__)) from error


def read_reply(model: str, content: bytes, texts: int) -> CallResult:
    """Reads what an endpoint answered; raises CallFailed for what is not one vector a text."""
    try:
        reply = _decode(content)
        ordered = sorted(enumerate(reply.data), key=lambda pair: pair[0] if pair[1].index is None else pair[1].index)
        vectors = [_bytes_of(item.embedding) for _, item in ordered]
    except (msgspec.DecodeError, ValueError, OverflowError, binascii.Error, struct.error):
        raise CallFailed(failures.garbage(model, f"{len(content)} bytes that are no embeddings")) from None
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != texts or len(lengths) != 1 or not (length := lengths.pop()) or length % FLOAT_BYTES:
        raise CallFailed(failures.garbage(model, f"{len(vectors)} vectors for {texts} texts, or of several lengths"))
    return _result(EmbeddingOutput(length // FLOAT_BYTES, b"".join(vectors)), reply.usage, reply.model)


def _bytes_of(vector: list[float] | str) -> bytes:
    if isinstance(vector, str):
        return base64.b64decode(vector, validate=True)
    numbers = array("f", vector)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("numbers that float32 does not hold")
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _result(output: EmbeddingOutput, usage: UpstreamUsage | None, model: str) -> CallResult:
    return CallResult(Answer([Choice(encode_output(output).decode())]), usage, model)
