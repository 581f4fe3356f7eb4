"""Asking context for vectors: any number of texts, in questions of a bounded size.

Not here: numbers. A vector is bytes (little-endian float32) for whoever computes with it. One rule: texts leave the
asker sealed with their tenant's key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from collegium_contracts import subjects as s
from collegium_contracts.embedding import (
    FLOAT_BYTES,
    QUESTION_BYTES_MAX,
    TEXTS_MAX,
    EmbedReply,
    EmbedRequest,
    encode_texts,
)
from collegium_contracts.envelope import Keyring

from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError, RequestRefusedError

ASK_SECONDS: Final = 30.0


class Embedded(NamedTuple):
    """Vectors of one length, one after the other, the tokens of each text, and whose they are."""

    model: str
    dimensions: int
    vectors: bytes
    tokens: list[int]


class EmbedClient:
    """Embeds by asking context."""

    def __init__(self, connection: Connection, keyring: Keyring) -> None:
        self._connection = connection
        self._keyring = keyring

    async def embed(
        self,
        tenant: str,
        texts: Sequence[str],
        *,
        model: str = "",
        timeout_seconds: float = ASK_SECONDS,
        traceparent: str = "",
    ) -> Embedded:
        """Returns one vector a text; ``timeout_seconds`` bounds each question.

        ``model`` (empty: any) must be context's. Raises RequestRefusedError (``embedder_unavailable``,
        ``unknown_model``, ``body_too_large`` for a text over half a megabyte), NoAnswerError, or UnknownKeyError.
        """
        vectors, tokens = bytearray(), list[int]()
        name, dimensions = model, 0
        for part in _parts(texts):
            rest = list(part)
            while rest:
                reply = await ask(
                    self._connection,
                    s.SVC_EMBED_TEXTS,
                    EmbedRequest(tenant=tenant, texts=self._keyring.seal(tenant, encode_texts(rest)), model=name),
                    EmbedReply,
                    timeout_seconds=timeout_seconds,
                    traceparent=traceparent,
                )
                if not reply.tokens or len(reply.vectors) != len(reply.tokens) * reply.dimensions * FLOAT_BYTES:
                    raise NoAnswerError(f"{s.SVC_EMBED_TEXTS}: {len(reply.vectors)} bytes are not vectors")
                name, dimensions = reply.model, reply.dimensions
                vectors += reply.vectors
                tokens += reply.tokens
                rest = rest[len(reply.tokens) :]
        return Embedded(name, dimensions, bytes(vectors), tokens)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields texts in parts that fit a question."""
    begin = size = 0
    for index, text in enumerate(texts):
        # As JSON: at worst every character of a text is written as six.
        length = len(encode_texts(text)) + 1
        if length > QUESTION_BYTES_MAX:
            raise RequestRefusedError("body_too_large", f"text {index} is over {QUESTION_BYTES_MAX} bytes", "input")
        if index > begin and (index - begin == TEXTS_MAX or size + length > QUESTION_BYTES_MAX):
            yield texts[begin:index]
            begin, size = index, 0
        size += length
    if begin < len(texts):
        yield texts[begin:]
