"""What stands inside envelopes: chat messages and answers, as JSON.

Content is JSON (not msgpack) because it comes from and goes to JSON on both sides, and parts the platform does not
interpret (tool arguments, images) pass through byte for byte.
"""

from __future__ import annotations

import msgspec


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a chat as OpenAI defines it; parts we do not interpret stay raw JSON."""

    role: str
    content: str | list[msgspec.Raw] | None = None
    name: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    tool_call_id: str | None = None


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One choice of an answer: its text, its tool calls and why it ended.

    Where its tenant agreed to be learned from, ``reasoning`` is what the model told of its thinking, and ``likely``
    what it might have said in place of each token (token, log-probability), of short answers alone.
    """

    text: str | None = None
    finish_reason: str = "stop"
    tool_calls: list[msgspec.Raw] | None = None
    reasoning: str | None = None
    likely: list[list[tuple[str, float]]] | None = None


class Answer(msgspec.Struct, frozen=True):
    """A model's answer: one choice, or several where the request asked for ``n``."""

    choices: list[Choice]


def as_shown(choices: list[Choice]) -> list[Choice]:
    """Returns choices without what is kept to learn from."""
    return [msgspec.structs.replace(choice, reasoning=None, likely=None) for choice in choices]


_answer_encoder = msgspec.json.Encoder()
_answer_decoder = msgspec.json.Decoder(Answer)
_messages_decoder = msgspec.json.Decoder(list[ChatMessage])


def encode_content(content: Answer | list[ChatMessage]) -> bytes:
    """Writes content as JSON."""
    return _answer_encoder.encode(content)


def decode_answer(plain: bytes) -> Answer:
    """Reads an answer; raises msgspec.DecodeError on anything else."""
    return _answer_decoder.decode(plain)


def decode_messages(plain: bytes) -> list[ChatMessage]:
    """Reads a list of chat messages; raises msgspec.DecodeError on anything else."""
    return _messages_decoder.decode(plain)
