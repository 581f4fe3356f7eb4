"""What each probe asks of an endpoint, and how its answer is judged. Pure.

Every call is a few dozen tokens. One rule: a probe judges the form of an answer, never whether it is any good.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from collegium_contracts.content import Answer
from collegium_contracts.probing import ProbeFound, ProbeName

from collegium_worker_pool.upstream.wire import StreamOptions, UpstreamRequest

# Enough for a model that thinks a little before it speaks.
MAX_TOKENS: Final = 64
CAPABILITIES: Final[dict[str, ProbeName]] = {"tools": "tools", "json": "json", "logprobs": "logprobs"}
_PROMPTS: Final[dict[ProbeName, str]] = {
    "chat": "Reply with the word yes.",
    "stream": "Reply with the word yes.",
    "tools": "Report the number 7 with the function report.",
    "json": 'Reply with the JSON object {"ok": true} and nothing else.',
    "logprobs": "Reply with the word yes.",
}
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "report",
        "description": "Reports a number.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    },
}
_FORMAT: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "probe",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        },
    },
}
_encode = msgspec.json.Encoder().encode


def body(name: ProbeName, upstream_model: str) -> bytes:
    """Returns the request of one probe."""
    choice = {"type": "function", "function": {"name": "report"}}
    return _encode(
        UpstreamRequest(
            model=upstream_model,
            messages=_raw([{"role": "user", "content": _PROMPTS[name]}]),
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            tools=_raw([_TOOL]) if name == "tools" else None,
            tool_choice=_raw(choice) if name == "tools" else None,
            response_format=_raw(_FORMAT) if name == "json" else None,
            stream=name == "stream",
            stream_options=StreamOptions() if name == "stream" else None,
            logprobs=name == "logprobs",
        )
    )


def amiss(name: ProbeName, answer: Answer, logprob: float | None) -> str:
    """Says what is wrong with the answer to a probe; empty where nothing is."""
    choice = answer.choices[0]
    match name:
        case "tools":
            calls = [msgspec.json.decode(call) for call in choice.tool_calls or ()]
            return "" if any(_is_report(call) for call in calls) else "answered without a call of the tool"
        case "json":
            return "" if _object(choice.text) is not None else "answered with something that is no JSON object"
        case "logprobs":
            return "" if logprob is not None else "gave no log-probabilities"
        case _:
            return "" if choice.text or choice.finish_reason == "length" else "answered without a text"


def context_found(said: int, listed: int) -> ProbeFound:
    """Judges what an endpoint lists as its context length (0: nothing) against what was said of it, in tokens."""
    if not listed:
        return ProbeFound(name="context", state="skipped", detail="the endpoint does not say")
    if listed < said:
        text = f"the endpoint says {listed} tokens, {said} were told"
        return ProbeFound(name="context", state="failed", detail=text)
    return ProbeFound(name="context", state="passed", detail=f"the endpoint says {listed} tokens")


def _is_report(call: Any) -> bool:
    match call:
        case {"function": {"name": "report", "arguments": str(arguments)}}:
            return _object(arguments) is not None
        case _:
            return False


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text or "")
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))
