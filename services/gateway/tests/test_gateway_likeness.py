"""Who may have answers to questions alike, and what they depend on beside the messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from collegium_gateway.admission.admission import Asked, asked_by_chat
from collegium_gateway.admission.requests import decode_chat, parse
from collegium_gateway.reuse import cachekey
from collegium_settings.settings import CacheSettings
from collegium_testing.platform import RunningPlatform

ASK: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


def asked(**fields: Any) -> Asked:
    return asked_by_chat(parse(decode_chat, msgspec.json.encode(ASK | fields)))


def setting(tenant: str = "acme", policy: tuple[Any, ...] = (), **fields: Any) -> bytes | None:
    return cachekey.setting(tenant, asked(**fields), policy)


def test_the_messages_are_no_part_of_the_setting():
    assert setting() == setting(messages=[{"role": "user", "content": "And of Spain?"}])


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"stop": "x"},
        {"response_format": {"type": "json_object"}},
        {"tenant": "globex"},
        {"policy": ("pro", ["sim"])},
    ],
)
def test_whatever_else_an_answer_depends_on_is(fields: dict[str, Any]):
    assert setting(**fields) != setting()


@pytest.mark.parametrize("fields", [{"n": 2}, {"tools": [{"type": "function", "function": {"name": "f"}}]}])
def test_what_is_no_single_text_has_none(fields: dict[str, Any]):
    assert setting(**fields) is None


@pytest.fixture
async def alone(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[RunningPlatform]:
    """A platform without context, for everybody of which answers to questions alike are on."""
    cache = CacheSettings(semantic=True)
    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path, cache=cache) as running:
        yield running


async def test_without_context_every_chat_is_answered(alone: RunningPlatform):
    for number in range(3):
        body = {
            "model": "sim",
            "messages": [{"role": "user", "content": f"How do I carve a spoon {'ab'[number % 2]}?"}],
        }
        async with alone.session() as http, http.post("/v1/chat/completions", json=body) as response:
            assert response.status == 200
            assert response.headers["x-collegium-cache"] == ("hit_exact" if number == 2 else "miss")
    assert alone.sim.counts().totals.started == 2
