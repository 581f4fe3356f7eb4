"""What is found of an endpoint before anybody calls it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from collegium_testing import ModelSimulator
from collegium_worker_pool.endpoints.endpoint_health import asked, listed, whole
from collegium_worker_pool.upstream.endpoints import Endpoint


def endpoint(base_url: str, model: str = "sim", key: str = "") -> Endpoint:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Endpoint(f"{base_url.rstrip('/')}/chat/completions", headers, model, "openai-compatible", 1.0, None)


async def test_an_endpoint_is_asked_for_its_models_and_told_by_what_it_says():
    async with ModelSimulator(api_key="right", models=("sim",)) as simulator, aiohttp.ClientSession() as session:
        assert await asked(session, endpoint(simulator.base_url, key="right")) == ("ok", 0)
        assert await asked(session, endpoint(simulator.base_url, "other", key="right")) == ("unlisted", 0)
        assert await asked(session, endpoint(simulator.base_url, key="wrong")) == ("unauthorized", 0)
        gone = simulator.base_url
    async with aiohttp.ClientSession() as session:
        assert await asked(session, endpoint(gone, key="right")) == ("unreachable", 0)


async def test_a_listing_that_comes_in_parts_is_read_to_its_end():
    parts = [b'{"data": [', b'{"id": "a"}, ', b'{"id": "m", "context_length": 4096}]}']

    class Coming:
        async def read(self, count: int) -> bytes:
            return parts.pop(0)[:count] if parts else b""

    coming: Any = Coming()
    assert listed(await whole(coming), "m") == ("ok", 4096)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"data": [{"id": "a"}, {"id": "m", "context_length": 4096}]}', ("ok", 4096)),
        (b'{"data": [{"id": "m", "max_model_len": 8192}]}', ("ok", 8192)),
        (b'{"data": [{"id": "m", "meta": {"n_ctx": 2048}}]}', ("ok", 2048)),
        (b'{"data": [{"id": "m", "context_length": -5}]}', ("ok", 0)),
        (b'{"data": [{"id": "other"}]}', ("unlisted", 0)),
        (b'{"data": []}', ("ok", 0)),
        (b"not found", ("ok", 0)),
        (b"", ("ok", 0)),
        (b'{"data": [{"id": 5}]}', ("ok", 0)),
        (b"[" * 100_000, ("ok", 0)),
    ],
)
def test_a_listing_is_read_and_what_cannot_be_read_says_nothing(body: bytes, found: tuple[str, int]):
    assert listed(body, "m") == found
