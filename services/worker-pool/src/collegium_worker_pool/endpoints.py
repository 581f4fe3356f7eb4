"""Where the models are and how to get in, from this worker's own configuration.

One rule: keys live here and in the request's header, and nowhere else.
"""

from __future__ import annotations

import msgspec
from collegium_runtime.runtime_file import EmbeddedModel
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings

EMBEDDED_TIMEOUT_SECONDS = 45.0
# Thousands of texts on a processor of few cores; most tasks have an earlier deadline.
BUNDLED_TIMEOUT_SECONDS = 120.0


class Endpoint(msgspec.Struct, frozen=True):
    """One model's endpoint: the URL to post to, its headers (with the key), its own name there, and its limits.

    The bundled embedder has no URL: context is asked for it. ``dimensions`` are asked of an embedder where a request
    does not say.
    """

    url: str
    headers: dict[str, str]
    upstream_model: str
    provider: str
    timeout_seconds: float
    concurrency: int | None
    dimensions: int | None = None


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
    found[settings.embeddings.name] = _embedder(settings.embeddings)
    return found


def _embedder(settings: EmbeddingsSettings) -> Endpoint:
    headers = {"Content-Type": "application/json"}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key.reveal()}"
    return Endpoint(
        url=settings.base_url.rstrip("/") + "/embeddings" if settings.base_url is not None else "",
        headers=headers,
        upstream_model=settings.upstream_model or settings.name,
        provider="openai-compatible" if settings.base_url is not None else "onnxruntime",
        timeout_seconds=settings.timeout_seconds if settings.base_url is not None else BUNDLED_TIMEOUT_SECONDS,
        concurrency=settings.limits.concurrency,
        dimensions=settings.dimensions,
    )
