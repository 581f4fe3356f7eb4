"""Texts to vectors, as services ask for them and as a task of the kind ``embedding`` carries them.

A vector is little-endian float32, L2-normalised where the embedder says so. One rule: texts travel sealed, in the
question as in the journey; vectors hold no readable text and travel as bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Message

# A question, and an answer, fit one message of the broker, which takes a megabyte.
TEXTS_MAX: Final = 128
QUESTION_BYTES_MAX: Final = 512 * 1024
ANSWER_BYTES_MAX: Final = 768 * 1024
FLOAT_BYTES: Final = 4


class EmbedRequest(Message, frozen=True, kw_only=True):
    """Asks context for the vectors of at most TEXTS_MAX texts. ``texts`` seals JSON: a list of strings.

    ``model`` (empty: whichever there is) refuses where context's embedder is another one: vectors of two models are
    not to be compared.
    """

    tenant: str
    texts: Envelope
    model: str = ""


class EmbedReply(Message, frozen=True, kw_only=True):
    """The vectors, one after the other, and the tokens of each text.

    They may be of the first texts alone where all would not fit a message: ask again for the rest.
    """

    model: str
    dimensions: int
    vectors: bytes
    tokens: list[int]


class EmbeddingOutput(msgspec.Struct, frozen=True):
    """What a task of the kind ``embedding`` puts into its answer's text, as JSON: all vectors, one after the other."""

    dimensions: int
    vectors: bytes


encode_texts = msgspec.json.Encoder().encode
decode_texts = msgspec.json.Decoder(list[str]).decode
encode_output = msgspec.json.Encoder().encode
decode_output = msgspec.json.Decoder(EmbeddingOutput).decode
