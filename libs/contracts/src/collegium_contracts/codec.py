"""Encoding and decoding of messages: msgpack, tagged, versioned.

One rule: bytes that are no message of ours end in a typed error, never in a half-read struct.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from collegium_contracts.base import MAJOR_VERSION, Message
from collegium_contracts.errors import UndecodableMessageError, UnknownVersionError
from collegium_contracts.messages import JourneyMessage, SettledMessage
from collegium_contracts.service_messages import ServiceReply, ServiceRequest
from collegium_contracts.state import StateValue

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


class _Header(msgspec.Struct, frozen=True):
    type: str
    v: int = MAJOR_VERSION


_header_decoder = msgspec.msgpack.Decoder(_Header)


class Codec(Generic[M]):
    """Decodes one union of messages (a lone tagged struct would accept an untagged body, so unions only)."""

    def __init__(self, union: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)

    def decode(self, payload: bytes) -> M:
        """Decodes one message; raises :class:`UndecodableMessageError` or :class:`UnknownVersionError`."""
        try:
            message = self._decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _explain(payload, error) from None
        if isinstance(message, Message) and message.v != MAJOR_VERSION:
            raise _unknown_version(type(message).__name__, message.v)
        return message


def _explain(payload: bytes, error: Exception) -> UndecodableMessageError | UnknownVersionError:
    try:
        header = _header_decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UndecodableMessageError(f"{len(payload)} bytes are not a message: {error}")
    if header.v != MAJOR_VERSION:
        return _unknown_version(header.type, header.v)
    return UndecodableMessageError(f"a message of type {header.type!r} does not decode: {error}")


def _unknown_version(name: str, version: int) -> UnknownVersionError:
    return UnknownVersionError(
        f"{name} has major version {version}; this process reads {MAJOR_VERSION}: upgrade it before its writers"
    )


journey: Codec[JourneyMessage] = Codec(JourneyMessage)
settled: Codec[SettledMessage] = Codec(SettledMessage)
request: Codec[ServiceRequest] = Codec(ServiceRequest)
reply: Codec[ServiceReply] = Codec(ServiceReply)
state: Codec[StateValue] = Codec(StateValue)
