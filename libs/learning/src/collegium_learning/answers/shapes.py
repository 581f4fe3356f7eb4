"""Which type of answer a request wants. Pure.

What it states comes first; a JSON schema says by its own type what is to be compared. One rule: what cannot be told is
text, and what an answer does not have the form of is compared as text (``extraction``).
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgspec
from collegium_contracts.content import Answer
from collegium_contracts.parts import AnswerKind, Sampling

from collegium_learning.answers.extraction import is_json

# Longer schemas are of objects.
SCHEMA_CHARS_MAX = 100_000


class Shape(NamedTuple):
    """The type of an answer, and the labels that it chooses from."""

    kind: AnswerKind
    labels: tuple[str, ...] = ()


TEXT = Shape("text")


def shape_of(sampling: Sampling) -> Shape | None:
    """Returns the type of answer that a request states; none where it states none."""
    if sampling.answer is not None:
        return Shape(sampling.answer, tuple(sampling.labels or ()))
    if sampling.response_format is None:
        return None
    return _formatted(sampling.response_format)


def form_of(answer: Answer) -> Shape:
    """Returns the type that an answer has the form of, where nobody knows what was wanted: JSON, or text."""
    text = answer.choices[0].text if answer.choices else None
    return Shape("json") if text is not None and is_json(text) else TEXT


def _formatted(raw: bytes) -> Shape | None:
    try:
        wanted: Any = msgspec.json.decode(raw) if len(raw) <= SCHEMA_CHARS_MAX else {"type": "json_object"}
    except (msgspec.DecodeError, RecursionError):
        return None
    match wanted:
        case {"type": "json_object"}:
            return Shape("json")
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return _schema(cast("dict[str, Any]", schema))
        case {"type": "json_schema"}:
            return Shape("json")
        case _:
            return None


def _schema(schema: dict[str, Any]) -> Shape:
    match schema:
        case {"enum": [_, _, *_] as options} if all(isinstance(one, str) for one in cast("list[Any]", options)):
            return Shape("label", tuple(cast("list[str]", options)))
        case {"type": "number" | "integer"}:
            return Shape("number")
        case {"type": "boolean"}:
            return Shape("label", ("true", "false"))
        case {"type": "string"}:
            return TEXT
        case _:
            return Shape("json")
