"""What an endpoint's embeddings may look like, and what is refused of them."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from collegium_contracts.embedding import decode_output
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_settings.secret import Secret
from collegium_worker_pool.calling.embedding import read_reply
from collegium_worker_pool.upstream.endpoints import endpoints
from collegium_worker_pool.upstream.failures import CallFailed


def vector(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def reply(*items: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode({"object": "list", "data": list(items), "model": "m", **more})


@pytest.mark.parametrize("kind", ["numbers", "bytes"])
def test_vectors_are_read_in_the_order_of_the_texts(kind: str):
    def written(*numbers: float) -> Any:
        return vector(*numbers) if kind == "bytes" else list(numbers)

    content = reply(
        {"index": 1, "embedding": written(3, 4)},
        {"index": 0, "embedding": written(1, 2)},
        usage={"prompt_tokens": 7, "total_tokens": 7},
    )
    result = read_reply("m", content, 2)
    output = decode_output(result.answer.choices[0].text or "")
    assert output.dimensions == 2
    assert struct.unpack("<4f", output.vectors) == (1, 2, 3, 4)
    assert result.usage is not None
    assert result.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    "content",
    [
        b"no json",
        b'{"data": 1}',
        reply({"index": 0, "embedding": [1.0]}),
        reply({"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}),
        reply({"index": 0, "embedding": []}, {"index": 1, "embedding": []}),
        reply({"index": 0, "embedding": "!!"}, {"index": 1, "embedding": "!!"}),
        reply({"index": 0, "embedding": "AAA="}, {"index": 1, "embedding": "AAA="}),
        reply({"index": 0, "embedding": [1e300]}, {"index": 1, "embedding": [1.0]}),
    ],
)
def test_what_is_not_one_vector_a_text_is_refused(content: bytes):
    with pytest.raises(CallFailed) as refused:
        read_reply("m", content, 2)
    assert refused.value.error.code == "upstream_garbage"


def test_the_embedder_is_where_the_configuration_says():
    (bundled,) = endpoints(Settings(), None).values()
    assert (bundled.url, bundled.headers.get("Authorization")) == ("", None)
    settings = EmbeddingsSettings(
        base_url="http://example.org/v1/", model="e", upstream_model="up", api_key=Secret("secret"), dimensions=8
    )
    found = endpoints(Settings(embeddings=settings), None)["e"]
    assert (found.url, found.upstream_model, found.dimensions) == ("http://example.org/v1/embeddings", "up", 8)
    assert found.headers["Authorization"] == "Bearer secret"
