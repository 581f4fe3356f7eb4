"""What one finished call used, in one header of the event that ends it: tokens, duration, model. Pure.

Routers hear events without their payloads, and count by this note what a model's endpoint was asked for. One rule: each
call is noted on one event only, so that a sum over events counts it once.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_contracts.messages import AttemptUsage


class CallNote(NamedTuple):
    """A finished call: the model, its tokens (input and output), and how long it took."""

    model: str
    tokens: int
    duration_ms: int


def write_note(call: AttemptUsage) -> str:
    """Writes a call's note; empty where nothing was called."""
    if not call.delivery:
        return ""
    return f"{call.usage.input_tokens + call.usage.output_tokens} {call.duration_ms} {call.model}"


def read_note(text: str) -> CallNote | None:
    """Reads a note; none where there is none, or what stands there is not one."""
    tokens, _, rest = text.partition(" ")
    duration_ms, _, model = rest.partition(" ")
    if not (model and tokens.isascii() and tokens.isdigit() and duration_ms.isascii() and duration_ms.isdigit()):
        return None
    return CallNote(model, int(tokens), int(duration_ms))
