"""``svc.embed.texts``: vectors for other services.

One rule: an answer holds vectors of the first texts at least, as many as one message takes; the asker asks for the
rest.
"""

from __future__ import annotations

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.embedding import (
    ANSWER_BYTES_MAX,
    FLOAT_BYTES,
    TEXTS_MAX,
    EmbedReply,
    EmbedRequest,
    decode_texts,
)
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.messages import Message
from collegium_contracts.scope import Scope
from collegium_runtime.spans import received
from collegium_telemetry import names
from collegium_telemetry.tracing import Tracing

from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError
from collegium_context.telemetry import SPAN_EMBED

_HOP = received(s.SVC_EMBED_TEXTS)
# Until an endpoint has said how long its vectors are: longer than most.
DIMENSIONS_UNKNOWN = 4_096


class EmbedAnswers:
    """Answers with vectors."""

    def __init__(self, embedder: Embedder, keyring: Keyring, tracing: Tracing) -> None:
        self._embedder = embedder
        self._keyring = keyring
        self._tracing = tracing

    async def embed(self, question: Message, traceparent: str) -> Message:
        """Answers with one vector a text, of the first texts where all would not fit."""
        with self._tracing.hop(SPAN_EMBED, "server", traceparent, _HOP) as hop:
            if not isinstance(question, EmbedRequest):
                raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
            if not TENANT_ID.match(question.tenant):
                raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
            hop.set(names.TENANT, question.tenant)
            if question.model not in ("", self._embedder.model):
                text = f"context embeds with {self._embedder.model}, not with {question.model[:128]!r}"
                raise RequestRefusedError("unknown_model", text, "model")
            texts = (await self._texts(question))[: self._texts_max()]
            try:
                counted = await self._embedder.embed_counted(texts, scope=Scope(question.tenant))
            except EmbedderUnavailableError as error:
                raise RequestRefusedError("embedder_unavailable", str(error)) from error
            return EmbedReply(
                model=self._embedder.model,
                dimensions=counted.vectors.shape[1],
                vectors=counted.vectors.astype("<f4").tobytes(),
                tokens=counted.tokens,
            )

    def _texts_max(self) -> int:
        try:
            dimensions = self._embedder.dimensions
        except EmbedderUnavailableError:
            dimensions = DIMENSIONS_UNKNOWN
        return max(1, min(TEXTS_MAX, ANSWER_BYTES_MAX // (dimensions * FLOAT_BYTES)))

    async def _texts(self, question: EmbedRequest) -> list[str]:
        try:
            await held(self._keyring, question.tenant, question.texts)
            texts = decode_texts(self._keyring.open(question.tenant, question.texts))
        except UnknownKeyError as error:
            raise RequestRefusedError(
                "invalid_value", "the texts are sealed with a key that is not held", "texts"
            ) from error
        except msgspec.DecodeError as error:
            raise RequestRefusedError("invalid_value", "not a list of texts", "texts") from error
        if not 1 <= len(texts) <= TEXTS_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {TEXTS_MAX} texts", "texts")
        return texts
