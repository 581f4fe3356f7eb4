"""What a model's answer says, and whether two say the same. Pure.

An answer says what its first choice does: its text, or the calls it wants made. One rule: a text that says nothing
("I cannot answer that") is equal to none, so that two models that give up do not agree with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from collegium_contracts.content import Answer

from collegium_learning.answers.extraction import AnswerType, key_of

# No normalised text begins so, therefore no text equals a list of calls.
_CALLS = "\x00"

_sorted_json = msgspec.json.Encoder(order="sorted")


def said(answer: Answer, kind: AnswerType = "text", labels: Sequence[str] = ()) -> str:
    """Returns what an answer says, empty for nothing; equal answers are equal strings. ``labels``: of ``label``."""
    if not answer.choices:
        return ""
    first = answer.choices[0]
    if first.tool_calls:
        return _CALLS + "\n".join(_call(call) for call in first.tool_calls)
    return key_of(first.text, kind, labels)


def says_same(first: Answer, second: Answer, kind: AnswerType = "text", labels: Sequence[str] = ()) -> bool | None:
    """Whether two answers say the same; none where one of them says nothing."""
    one, other = said(first, kind, labels), said(second, kind, labels)
    return one == other if one and other else None


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
