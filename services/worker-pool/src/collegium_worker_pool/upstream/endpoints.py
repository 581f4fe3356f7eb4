"""Where the models are and how to get in, from this worker's own configuration.

One rule: keys live here and in the request's header, and nowhere else.
"""

from __future__ import annotations

import msgspec
from collegium_runtime.runtime_file import EmbeddedModel
from collegium_settings import Settings
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_settings.models import ModelSettings
from collegium_settings.secret import Secret

EMBEDDED_TIMEOUT_SECONDS = 45.0
# Thousands of texts on a processor of few cores; most tasks have an earlier deadline.
BUNDLED_TIMEOUT_SECONDS = 120.0
# The capability of an endpoint that gives log-probabilities; others may refuse a request that asks for them.
LOGPROBS = "logprobs"


class Endpoint(msgspec.Struct, frozen=True):
    """One model's endpoint: the URL to post to, its headers (with the key), its own name there, and its limits.

    The bundled embedder has no URL: context is asked for it. ``dimensions`` are asked of an embedder where a request
    does not say. ``tells_logprobs``: it can be asked for the log-probabilities of its tokens. ``replicas`` (empty: it
    is the only one) are all endpoints of its model, this one first. ``is_guarded``: somebody named its address while
    the platform ran, so that what it leads to is checked when it is called.
    """

    url: str
    headers: dict[str, str]
    upstream_model: str
    provider: str
    timeout_seconds: float
    concurrency: int | None
    dimensions: int | None = None
    tells_logprobs: bool = False
    replicas: tuple[Endpoint, ...] = ()
    is_guarded: bool = False

    def among(self, others: tuple[Endpoint, ...]) -> Endpoint:
        """Returns this endpoint as the first of several of its model; itself where there are no others."""
        return msgspec.structs.replace(self, replicas=(self, *others)) if others else self


def endpoints(settings: Settings, embedded: EmbeddedModel | None) -> dict[str, Endpoint]:
    """Returns the endpoints by roster name."""
    found: dict[str, Endpoint] = {}
    for model in settings.models:
        first = _configured(model, model.base_url, model.api_key, model.upstream_model)
        others = (
            _configured(model, one.base_url, one.api_key, one.upstream_model or model.upstream_model)
            for one in model.endpoints
        )
        found[model.name] = first.among(tuple(others))
    if embedded is not None and embedded.name not in found:
        found[embedded.name] = Endpoint(
            url=chat_url(embedded.base_url),
            headers={"Content-Type": "application/json"},
            upstream_model=embedded.name,
            provider="llama.cpp",
            timeout_seconds=EMBEDDED_TIMEOUT_SECONDS,
            concurrency=None,
        )
    found[settings.embeddings.name] = _embedder(settings.embeddings)
    return found


def chat_url(base_url: str) -> str:
    """Returns where chats are posted to at an address."""
    return base_url.rstrip("/") + "/chat/completions"


def _configured(model: ModelSettings, base_url: str, api_key: Secret | None, upstream: str | None) -> Endpoint:
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key.reveal()}"
    return Endpoint(
        url=chat_url(base_url),
        headers=headers,
        upstream_model=upstream or model.name,
        provider="openai-compatible",
        timeout_seconds=model.timeout_seconds,
        concurrency=model.limits.concurrency,
        tells_logprobs=LOGPROBS in model.capabilities,
    )


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
