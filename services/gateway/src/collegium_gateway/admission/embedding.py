"""From a request for embeddings to TaskSubmitted, and from its output to the answer. Pure.

Its task is of the kind ``embedding``: texts are sealed where a chat's messages are, and only embedders may be given it.
One rule: what this version does not carry out (token ids, a length that the embedder does not make) is refused.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, cast

import msgspec
from collegium_contracts.embedding import FLOAT_BYTES, EmbeddingOutput, encode_texts
from collegium_contracts.envelope import Keyring
from collegium_contracts.messages import Sampling, TaskRef, TaskSubmitted
from collegium_contracts.parts import Priority
from collegium_contracts.state import Breaker, ModelRecord

from collegium_gateway.admission.admission import AUTO, check_allowed, check_deadline, check_tags
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal

# As OpenAI has it; and what one settled message carries in the object store without holding anybody up.
INPUTS_MAX: Final = 2_048
VECTOR_BYTES_MAX: Final = 8 * 1024 * 1024
DIMENSIONS_MAX: Final = 65_536
# What is reckoned with while an endpoint's length is not known.
DIMENSIONS_UNKNOWN: Final = 4_096


class EmbeddingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request extension ``collegium``, as far as embeddings have it."""

    domain: str = ""
    deadline_seconds: float = 50.0
    priority: Priority = "normal"
    tags: dict[str, str] = {}
    gates: list[str] | None = None
    verified: dict[str, Any] | None = None


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``POST /v1/embeddings``, OpenAI's fields; ``user`` passes unread."""

    input: msgspec.Raw
    model: str = AUTO
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    collegium: EmbeddingOptions | None = None


decode_embedding = msgspec.json.Decoder(EmbeddingRequest)


def texts_of(request: EmbeddingRequest) -> list[str]:
    """Returns the texts of a request; raises ApiError with the one at fault."""
    value: Any = msgspec.json.decode(request.input)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ApiError("invalid_value", "input must be a text, or a list of texts that is not empty", param="input")
    if len(cast("list[Any]", texts)) > INPUTS_MAX:
        raise ApiError("invalid_value", f"input holds more than {INPUTS_MAX} texts", param="input")
    for index, text in enumerate(cast("list[Any]", texts)):
        if isinstance(text, int | list):
            raise ApiError(
                "unsupported_option",
                "input holds token ids, and tokens are a model's own: send the text itself",
                param="input",
            )
        if not isinstance(text, str) or not text:
            where = "input" if isinstance(value, str) else f"input[{index}]"
            raise ApiError("invalid_value", f"{where} must be a text that is not empty", param=where)
    return cast("list[str]", texts)


def embedding_submission(
    request: EmbeddingRequest,
    principal: Principal,
    models: Iterable[ModelRecord],
    keyring: Keyring,
    *,
    task_id: str,
    reply: str,
    now_ms: int,
) -> TaskSubmitted:
    """Returns the message that starts the journey, or raises ApiError for what cannot be accepted."""
    options = request.collegium or EmbeddingOptions()
    texts = texts_of(request)
    check_deadline(options.deadline_seconds)
    check_tags(options.tags)
    check_allowed(request.model, principal)
    may_ask = [model for model in models if not principal.models or model.name in principal.models]
    _check_model(request, len(texts), may_ask)
    content = encode_texts(texts)
    task = TaskRef(
        id=task_id,
        kind="embedding",
        tenant=principal.tenant,
        project=principal.project,
        key_id=principal.key_id,
        tier=principal.tier,
        created_at_ms=now_ms,
        deadline_ms=now_ms + int(options.deadline_seconds * 1000),
        model=request.model,
        priority=options.priority,
        plan="single",
        domain=options.domain,
        reply=reply,
        tags=options.tags,
        models=list(principal.models),
    )
    return TaskSubmitted(
        task=task,
        prompt=keyring.seal(principal.tenant, content),
        # No answer is written: what is counted and held for is the texts.
        sampling=Sampling(max_tokens=0, dimensions=request.dimensions),
        prompt_bytes=len(content),
    )


def _check_model(request: EmbeddingRequest, texts: int, models: list[ModelRecord]) -> None:
    embedders = [model for model in models if model.enabled and model.kind == "embedding"]
    if request.model != AUTO:
        embedders = [model for model in embedders if model.name == request.model]
        if not embedders:
            text = f"model {request.model[:128]!r} is no embedder of the roster; see GET /v1/models"
            raise ApiError("unknown_model", text, param="model")
    if not embedders:
        raise ApiError("no_eligible_model", "no enabled model makes embeddings", param="model")
    dimensions = request.dimensions
    if dimensions is not None:
        if not 1 <= dimensions <= DIMENSIONS_MAX:
            raise ApiError("invalid_value", f"dimensions must be from 1 to {DIMENSIONS_MAX}", param="dimensions")
        fixed = {model.dimensions for model in embedders if model.has_fixed_dimensions}
        if fixed and dimensions not in fixed:
            lengths = " or ".join(str(length) for length in sorted(fixed))
            text = f"vectors of {embedders[0].name} have {lengths} dimensions, and are not cut; leave it out"
            raise ApiError("unsupported_option", text, param="dimensions")
    length = dimensions or max(model.dimensions for model in embedders) or DIMENSIONS_UNKNOWN
    most = VECTOR_BYTES_MAX // (length * FLOAT_BYTES)
    if texts > most:
        text = f"input may hold at most {most} texts where vectors have up to {length} dimensions"
        raise ApiError("invalid_value", text, param="input")


def away_until_ms(task: TaskRef, models: Iterable[ModelRecord], breakers: Mapping[str, Breaker], now_ms: int) -> int:
    """Returns until when (Unix ms) every embedder that could answer is left alone; 0 where one may be asked now."""
    could = [
        model
        for model in models
        if model.enabled
        and model.kind == task.kind
        and task.model in (model.name, AUTO)
        and (not task.models or model.name in task.models)
    ]
    until = [breakers[model.name].open_until_ms if model.name in breakers else 0 for model in could]
    return min(until) if until and min(until) > now_ms else 0


def shown(output: EmbeddingOutput, encoding_format: str) -> Iterator[dict[str, Any]]:
    """Yields the vectors as OpenAI's list has them: as numbers, or as base64 of little-endian float32."""
    size = output.dimensions * FLOAT_BYTES
    for index, begin in enumerate(range(0, len(output.vectors), size)):
        vector = output.vectors[begin : begin + size]
        value = base64.b64encode(vector).decode() if encoding_format == "base64" else _numbers(vector)
        yield {"object": "embedding", "index": index, "embedding": value}


def _numbers(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
