"""What an answer votes for. Pure.

An answer votes with its first choice: what its text says, or the calls it wants made. One rule: a text that says
nothing ("I cannot answer that") votes for nothing, so that two models that give up do not agree with each other.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from collegium_contracts.content import Answer

from collegium_consensus.aggregation import key_of

# No normalised text begins so, therefore no text equals a list of calls.
_CALLS = "\x00"

_sorted_json = msgspec.json.Encoder(order="sorted")


def vote(answer: Answer) -> str:
    """Returns what an answer votes for, empty for nothing; equal votes are equal strings."""
    if not answer.choices:
        return ""
    first = answer.choices[0]
    if first.tool_calls:
        return _CALLS + "\n".join(_call(call) for call in first.tool_calls)
    return key_of(first.text)


def _call(raw: msgspec.Raw) -> str:
    """Writes one wanted call without its id, which differs from answer to answer."""
    value: Any = msgspec.json.decode(raw)
    function: Any = cast("dict[str, Any]", value).get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict):
        return _sorted_json.encode(value).decode()
    named = cast("dict[str, Any]", function)
    arguments: Any = named.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            arguments = arguments.strip()
    return _sorted_json.encode([named.get("name"), arguments]).decode()
