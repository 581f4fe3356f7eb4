"""Samples as JSON lines in the formats that fine-tuning services take. Pure.

``response``: a chat that ends with the teacher's answer. ``metric``: the same, what the answer was worth, and a weight
by it. ``reasoning``: the same, with what the teacher told of its thinking. ``soft``: the same, with what it might have
said. ``preference``: one prompt, the better answer and the worse one. With ``bare`` lines hold what a provider takes
and nothing else; where they came from then stands in the export's manifest alone. One rule: a line holds what its
tenant's people and models said, and where it came from; nothing of anybody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from collegium_contracts.content import ChatMessage

from collegium_learning.distill.soft import targets

# Answers whose worth differs by less prefer nothing.
PREFERENCE_GAP = 0.25
_encode = msgspec.json.Encoder().encode


class Line(NamedTuple):
    """One sample: its prompt, its answer, what that was worth (0..1), who gave it under which licence, and since when
    (Unix ms) its tenant agrees."""

    messages: list[ChatMessage]
    answer: str
    worth: float
    model: str
    licence: str
    consent_ms: int
    task_id: str
    reasoning: str = ""
    likely: list[list[tuple[str, float]]] | None = None


def response(
    line: Line,
    *,
    with_worth: bool = False,
    mean_worth: float = 1.0,
    with_reasoning: bool = False,
    temperature: float | None = None,
    bare: bool = False,
) -> bytes:
    """Returns a chat with its answer.

    ``with_worth`` adds what it was worth, and its weight: that over the ``mean_worth``, so that weights are one on
    average. ``temperature`` adds soft targets.
    """
    said: dict[str, Any] = {"role": "assistant", "content": line.answer}
    if with_reasoning and line.reasoning:
        said["reasoning_content"] = line.reasoning
    about: dict[str, Any] = {"messages": [*line.messages, said]}
    if temperature is not None:
        about["soft_targets"] = {"temperature": temperature, "tokens": targets(line.likely or (), temperature)}
    if with_worth:
        about["weight"] = round(line.worth / mean_worth, 4) if mean_worth > 0 else 1.0
    if not bare:
        about["metadata"] = _about(line) | ({"score": round(line.worth, 4)} if with_worth else {})
    return _encode(about)


def preference(line: Line, model: str, answer: str, source: str, *, bare: bool = False) -> bytes:
    """Returns a pair: a sample's answer, and another model's to the same prompt that it was preferred to."""
    return _pair(line, answer, {"preferred": _about(line), "non_preferred": {"model": model}, "source": source}, bare)


def preferences(lines: Sequence[Line], *, bare: bool = False) -> Iterator[bytes]:
    """Yields pairs of answers to the same prompt, the best against the worst, where one is worth clearly more."""
    by_prompt: dict[bytes, list[Line]] = {}
    for line in lines:
        by_prompt.setdefault(_encode(line.messages), []).append(line)
    for same in by_prompt.values():
        best, worst = max(same, key=_rank), min(same, key=_rank)
        if best.worth - worst.worth >= PREFERENCE_GAP and best.answer != worst.answer:
            about = {"preferred": _about(best), "non_preferred": _about(worst), "source": "judged"}
            yield _pair(best, worst.answer, about, bare)


def _pair(line: Line, worse: str, about: dict[str, Any], bare: bool) -> bytes:
    told: dict[str, Any] = {
        "input": {"messages": line.messages},
        "preferred_output": [ChatMessage(role="assistant", content=line.answer)],
        "non_preferred_output": [ChatMessage(role="assistant", content=worse)],
    }
    return _encode(told if bare else {**told, "metadata": about})


def _rank(line: Line) -> tuple[float, str]:
    return line.worth, line.task_id


def _about(line: Line) -> dict[str, Any]:
    return {
        "model": line.model,
        "licence": line.licence,
        "consent_ms": line.consent_ms,
        "task": line.task_id,
    }
