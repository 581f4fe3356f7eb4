"""``svc.context.features`` on a real broker: what a policy may see of a question, in the open and sealed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_context.app import build
from collegium_contracts import subjects as s
from collegium_contracts.content import ChatMessage, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.policy_requests import FeaturesReply, FeaturesRequest
from collegium_contracts.routing import FEATURES_PURPOSE
from collegium_learning.routing.features import TRAITS, directions, traits, unpack
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_testing import ModelSimulator

KEYRING = IdentityKeyring()


def asked(*messages: ChatMessage, tenant: str = "acme") -> FeaturesRequest:
    return FeaturesRequest(tenant=tenant, prompt=KEYRING.seal("acme", encode_content(list(messages))))


async def test_the_last_words_of_the_client_are_seen_and_nothing_else_is_answered_for(platforms: Any) -> None:
    async with ModelSimulator() as simulator:
        by = EmbeddingsSettings(base_url=simulator.base_url, model="embed", dimensions=64)
        platform = await platforms(settings=Settings(embeddings=by))
        app = build(platform)
        await app.start()
        try:

            async def features(question: FeaturesRequest) -> FeaturesReply:
                return await ask(platform.connection, s.SVC_CONTEXT_FEATURES, question, FeaturesReply)

            text = "What are 3 and 4 in all?"
            found = await features(
                asked(ChatMessage("user", "earlier"), ChatMessage("assistant", "yes?"), ChatMessage("user", text))
            )
            row = unpack(found.row)
            assert row is not None
            assert (found.embedder, len(row)) == ("embed/64", 64 + len(TRAITS))
            assert np.abs(row[64:] - traits(text)).max() < 0.1
            assert np.linalg.norm(directions(row)) == pytest.approx(1.0, abs=0.02)
            assert KEYRING.open("acme", found.sealed, FEATURES_PURPOSE) == found.row
            for question in (
                asked(ChatMessage("user", text), tenant="*"),
                asked(ChatMessage("system", "no client")),
                asked(ChatMessage("user", " ")),
                FeaturesRequest(tenant="acme", prompt=Envelope("unknown", b"", b"")),
                FeaturesRequest(tenant="acme", prompt=KEYRING.seal("acme", b"{")),
            ):
                with pytest.raises(RequestRefusedError) as refused:
                    await features(question)
                assert refused.value.code == "invalid_value"
        finally:
            await app.stop()
