"""Where the models are and how to get in, from this worker's own configuration.

One rule: keys live here and in the request's header, and nowhere else.
"""

from __future__ import annotations

import msgspec
from collegium_runtime.runtime_file import EmbeddedModel
from collegium_settings import Settings

EMBEDDED_TIMEOUT_SECONDS = 45.0


class Endpoint(msgspec.Struct, frozen=True):
    """One model's endpoint: the URL to post to, its headers (with the key), its own name there, and its limits."""

    url: str
    headers: dict[str, str]
    upstream_model: str
    provider: str
    timeout_seconds: float
    concurrency: int | None


def endpoints(settings: Settings, embedded: EmbeddedModel | None) -> dict[str, Endpoint]:
    """Returns the endpoints by roster name."""
    found: dict[str, Endpoint] = {}
    for model in settings.models:
        headers = {"Content-Type": "application/json"}
        if model.api_key:
            headers["Authorization"] = f"Bearer {model.api_key.reveal()}"
        found[model.name] = Endpoint(
            url=model.base_url.rstrip("/") + "/chat/completions",
            headers=headers,
            upstream_model=model.upstream_model or model.name,
            provider="openai-compatible",
            timeout_seconds=model.timeout_seconds,
            concurrency=model.limits.concurrency,
        )
    if embedded is not None and embedded.name not in found:
        found[embedded.name] = Endpoint(
            url=embedded.base_url.rstrip("/") + "/chat/completions",
            headers={"Content-Type": "application/json"},
            upstream_model=embedded.name,
            provider="llama.cpp",
            timeout_seconds=EMBEDDED_TIMEOUT_SECONDS,
            concurrency=None,
        )
    return found
