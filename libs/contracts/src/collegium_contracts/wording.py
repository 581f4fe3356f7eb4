"""Options of a request that hold a tenant's words (tools, stop words, a response format), sealed like its prompt.

Messages of earlier versions carry them in the open; they are read as they stand. One rule: a request without such
options is passed on untouched, and costs nothing here.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.envelope import Envelope, Keyring
from collegium_contracts.messages import Sampling


class Words(msgspec.Struct, frozen=True, omit_defaults=True):
    """What :attr:`Sampling.words` seals, as msgpack; fields are those of ``Sampling``."""

    stop: list[str] | None = None
    tools: bytes | None = None
    tool_choice: bytes | None = None
    response_format: bytes | None = None
    labels: list[str] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Words).decode


def words_sealed(keyring: Keyring, tenant: str, sampling: Sampling) -> Sampling:
    """Returns sampling whose words are sealed; the same where there are none."""
    tools, shape = sampling.tools, sampling.response_format
    if tools is shape is sampling.stop is sampling.tool_choice is sampling.labels is None:
        return sampling
    words = Words(sampling.stop, tools, sampling.tool_choice, shape, sampling.labels)
    return msgspec.structs.replace(
        sampling,
        stop=None,
        tools=None,
        tool_choice=None,
        response_format=None,
        labels=None,
        words=keyring.seal(tenant, _encode(words)),
        words_bytes=words_bytes(sampling),
    )


def words_opened(keyring: Keyring, tenant: str, sampling: Sampling) -> Sampling:
    """Returns sampling with its words in the open; the same where none are sealed.

    Raises UnknownKeyError where the key is not held, and msgspec.DecodeError where something else was sealed.
    """
    sealed: Envelope | None = sampling.words
    if sealed is None:
        return sampling
    words = _decode(keyring.open(tenant, sealed))
    return msgspec.structs.replace(
        sampling,
        stop=words.stop,
        tools=words.tools,
        tool_choice=words.tool_choice,
        response_format=words.response_format,
        labels=words.labels,
        words=None,
        words_bytes=0,
    )


def words_bytes(sampling: Sampling) -> int:
    """Returns how many bytes of a model's input the words may become: what they have, in the open or sealed."""
    return sampling.words_bytes + len(sampling.tools or b"") + len(sampling.response_format or b"")
