"""``svc.context.features``: what a routing policy may see of a question, for a router that opens no content.

The last words of the client are what is embedded. The row goes back in the open, as vectors do, to be decided by now,
and sealed with the tenant's key, to be kept with the task: what is learned from it later ends with that key. One rule:
of a prompt without text there are no features.
"""

from __future__ import annotations

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.content import decode_messages
from collegium_contracts.envelope import Keyring, UnknownKeyError, held
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.messages import Message
from collegium_contracts.policy_requests import FeaturesReply, FeaturesRequest
from collegium_contracts.routing import FEATURES_PURPOSE
from collegium_contracts.scope import Scope
from collegium_learning.routing.features import EMBEDDED_CHARS, pack, row_of, traits
from collegium_runtime.spans import received
from collegium_telemetry import names
from collegium_telemetry.tracing import Tracing

from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError, space_of
from collegium_context.memory.gist import text_of
from collegium_context.telemetry import SPAN_EMBED

_HOP = received(s.SVC_CONTEXT_FEATURES)


class FeatureAnswers:
    """Answers with a question's features."""

    def __init__(self, embedder: Embedder, keyring: Keyring, tracing: Tracing) -> None:
        self._embedder = embedder
        self._keyring = keyring
        self._tracing = tracing

    async def features(self, question: Message, traceparent: str) -> Message:
        """Answers with the row of the last text of a prompt's client."""
        with self._tracing.hop(SPAN_EMBED, "server", traceparent, _HOP) as hop:
            if not isinstance(question, FeaturesRequest):
                raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
            if not TENANT_ID.match(question.tenant):
                raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
            hop.set(names.TENANT, question.tenant)
            text = await self._text(question)
            scope = Scope(question.tenant)
            try:
                counted = await self._embedder.embed_counted([text[:EMBEDDED_CHARS]], scope=scope)
            except EmbedderUnavailableError as error:
                raise RequestRefusedError("embedder_unavailable", str(error)) from error
            packed = pack(row_of(counted.vectors[0], traits(text)))
            sealed = self._keyring.seal(question.tenant, packed, FEATURES_PURPOSE)
            return FeaturesReply(embedder=space_of(self._embedder), row=packed, sealed=sealed)

    async def _text(self, question: FeaturesRequest) -> str:
        try:
            await held(self._keyring, question.tenant, question.prompt)
            messages = decode_messages(self._keyring.open(question.tenant, question.prompt))
        except UnknownKeyError as error:
            text = "the prompt is sealed with a key that is not held"
            raise RequestRefusedError("invalid_value", text, "prompt") from error
        except msgspec.DecodeError as error:
            raise RequestRefusedError("invalid_value", "not a list of messages", "prompt") from error
        for message in reversed(messages):
            if message.role == "user" and (text := text_of(message).strip()):
                return text
        raise RequestRefusedError("invalid_value", "a prompt without a client's text", "prompt")
