"""Under which key an answer is kept: everything that it depends on, as one hash. Pure.

Two requests share a key only where they provably mean the same: keys of JSON objects in another order, a field that is
null or left out, a text as such or as its message's only text part. Numbers count as they were written. Who asks within
the tenant, for when and how urgently has no say in the answer. One rule: what is not understood makes a key of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from collegium_contracts.memory_paths import OFF
from collegium_contracts.messages import TaskRef

from collegium_gateway.admission.admission import AUTO, Asked

# Part of every key: whoever changes how keys are made changes it, and old answers are found no more.
VERSION: Final = 1
_NUMBER: Final = 1
_OPTIONAL: Final = ("content", "name", "tool_calls", "tool_call_id")


def _as_written(number: str) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_NUMBER, number.encode())


_decode_messages = msgspec.json.Decoder(list[dict[str, Any]], float_hook=_as_written).decode
_decode_any = msgspec.json.Decoder(Any, float_hook=_as_written).decode
_encode = msgspec.msgpack.Encoder(order="sorted").encode


def digest(tenant: str, asked: Asked, *, knowledge: str = "", gates: Sequence[str] = (), arm: str = "") -> bytes | None:
    """Returns the key (SHA-256) of a checked request's answer, or none for a request that has none.

    ``knowledge`` is the version of what the platform itself adds to prompts; ``gates`` are the rules and versions that
    the request and its answer pass, ``arm`` is what an experiment gives it.
    """
    try:
        messages = [_message(message) for message in _decode_messages(asked.messages)]
        parts = _parts(tenant, asked, messages, knowledge, gates)
        return hashlib.sha256(_encode((*parts, arm) if arm else parts)).digest()
    except (msgspec.DecodeError, OverflowError, RecursionError, TypeError, ValueError):
        # Numbers that no MessagePack holds, or nesting without end.
        return None


def setting(tenant: str, asked: Asked, policy: tuple[Any, ...], gates: Sequence[str] = ()) -> bytes | None:
    """Returns the hash of everything but the messages that an answer depends on; ``policy`` is what else it is.

    Only for requests that have a :func:`digest`; none where what is asked for is no single text.
    """
    if asked.sampling.n != 1 or asked.sampling.tools is not None:
        return None
    return hashlib.sha256(_encode((_parts(tenant, asked, [], "", gates), policy))).digest()


def _parts(
    tenant: str, asked: Asked, messages: list[dict[str, Any]], knowledge: str, gates: Sequence[str]
) -> tuple[Any, ...]:
    options, sampling = asked.options, asked.sampling
    return (
        VERSION,
        tenant,
        (AUTO, options.domain) if asked.model == AUTO else asked.model,
        "single" if options.plan == AUTO else options.plan,
        messages,
        sampling.max_tokens,
        sampling.temperature,
        sampling.top_p,
        sampling.frequency_penalty,
        sampling.presence_penalty,
        sampling.seed,
        sampling.stop,
        sampling.n,
        _json(sampling.tools),
        _json(sampling.tool_choice),
        _json(sampling.response_format),
        options.quality_min,
        options.budget_usd_max,
        list(gates) or options.gates,
        options.verified,
        knowledge,
    )


def rules_of(task: TaskRef) -> Sequence[str]:
    """Returns the rules and versions that a task and its answer pass."""
    return task.gated.rules if task.gated is not None else ()


def has_answer_of_its_own(asked: Asked) -> bool:
    """Whether a request's answer depends on more than what it holds, or is to be made by a vote."""
    options = asked.options
    return bool(
        options.plan not in (AUTO, "single")
        or options.quality_min is not None
        or options.tests
        or options.conversation
        or options.memory not in (None, "", OFF)
        or options.not_before is not None
        or options.off_peak
    )


def _json(raw: bytes | None) -> Any:
    return None if raw is None else _decode_any(raw)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    for name in _OPTIONAL:
        if name in message and message[name] is None:
            del message[name]
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = _content(content)  # pyright: ignore[reportUnknownArgumentType] - JSON of any shape
    return message


def _content(parts: list[Any]) -> Any:
    match parts:
        case [{"type": "text", "text": str(text), **more}] if not more:
            return text
        case _:
            return parts
