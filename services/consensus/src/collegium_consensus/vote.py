"""What an answer votes for, and the count of votes. Pure.

An answer votes with its first choice: its normalised text, or the calls it wants made. Most votes win; between equals,
the one voted for by the lowest attempt. One rule: the count does not depend on the order in which answers came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec
from collegium_contracts.content import Answer

from collegium_consensus.normalise import normalise

# No normalised text begins so, therefore no text equals a list of calls.
_CALLS = "\x00"

_sorted_json = msgspec.json.Encoder(order="sorted")


class Count(NamedTuple):
    """The result: the winner's attempt number, how many agree with it (itself included), and how many voted."""

    winner: int
    agreeing: int
    votes: int

    @property
    def is_majority(self) -> bool:
        """Whether at least two agreed."""
        return self.agreeing > 1


def count(answers: Mapping[int, Answer]) -> Count | None:
    """Counts the votes of answers by attempt number; none where nobody voted."""
    camps: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(answers):
        camps[vote(answers[number])].append(number)
    if not camps:
        return None
    best = min(camps.values(), key=lambda numbers: (-len(numbers), numbers[0]))
    return Count(winner=best[0], agreeing=len(best), votes=len(answers))


def vote(answer: Answer) -> str:
    """Returns what an answer votes for; equal votes are equal strings."""
    if not answer.choices:
        return ""
    first = answer.choices[0]
    if first.tool_calls:
        return _CALLS + "\n".join(_call(call) for call in first.tool_calls)
    return normalise(first.text or "")


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
