"""What a turn is, and what a model gets to see of earlier ones. Pure.

A turn is what the client sent and what it got: a JSON list of chat messages whose last is the assistant's. Messages
are passed through byte for byte; only their roles are read. One rule: a history never begins with the answer to a call
that is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from collegium_contracts.content import ChatMessage, decode_answer, encode_content

_OPENING = ("user", "system", "developer")

_Messages = list[msgspec.Raw]
_decode_list = msgspec.json.Decoder(_Messages).decode
_encode = msgspec.json.encode


class _Role(msgspec.Struct):
    role: str = ""


_decode_role = msgspec.json.Decoder(_Role).decode


class Turn(msgspec.Struct, frozen=True):
    """One turn, unsealed: a JSON list, and how many messages it holds."""

    body: bytes
    messages: int


def make_turn(client: bytes, output: bytes) -> Turn:
    """Joins the messages that the client sent with the assistant's answer (its first choice).

    Raises msgspec.DecodeError where either is not what it should be.
    """
    messages = _decode_list(client)
    choices = decode_answer(output).choices
    if choices:
        said = ChatMessage(role="assistant", content=choices[0].text, tool_calls=choices[0].tool_calls)
        (raw,) = _decode_list(encode_content([said]))
        messages.append(raw)
    return Turn(_encode(messages), len(messages))


class History(msgspec.Struct, frozen=True):
    """The newest messages of a conversation, oldest first, as a JSON list."""

    body: bytes
    messages: int


def make_history(turns: Iterable[bytes], *, max_messages: int, is_cut: bool) -> History | None:
    """Joins turns (oldest first) into a history of at most ``max_messages``; none where nothing can be shown.

    ``is_cut`` says that older turns were left out. A history that was cut begins with a message of the client's, or
    where there is none, with an assistant's.
    """
    messages = [message for turn in turns for message in _decode_list(turn)]
    if is_cut or len(messages) > max_messages:
        messages = _from_an_opening(messages[-max_messages:])
    return History(_encode(messages), len(messages)) if messages else None


def _from_an_opening(messages: Sequence[msgspec.Raw]) -> Sequence[msgspec.Raw]:
    roles = [_decode_role(message).role for message in messages]
    opening = next((number for number, role in enumerate(roles) if role in _OPENING), None)
    if opening is None:
        opening = next((number for number, role in enumerate(roles) if role != "tool"), len(messages))
    return messages[opening:]
