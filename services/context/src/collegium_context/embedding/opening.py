"""The embedder that the configuration asks for."""

from __future__ import annotations

import structlog
from collegium_settings.embeddings import EmbeddingsSettings
from collegium_telemetry.metrics import Metrics

from collegium_context.embedding.embedder import CachedEmbedder
from collegium_context.embedding.endpoint import EndpointEngine
from collegium_context.embedding.interface import EmbedderUnavailableError
from collegium_context.embedding.minilm import Batches
from collegium_context.embedding.process import EmbedderProcess
from collegium_context.embedding.shelf import VectorShelf

log = structlog.get_logger(__name__)


def open_previous(settings: EmbeddingsSettings) -> CachedEmbedder | None:
    """Returns the embedder that was configured before, for what it embedded, where it can still be asked.

    The bundled one always can; it starts its process when it is first asked.
    """
    if settings.previous is not None:
        return CachedEmbedder(EndpointEngine(settings.previous.as_embeddings()), memory_bytes=0)
    if settings.base_url is not None:
        return CachedEmbedder(Batches(EmbedderProcess(settings.threads), settings.threads), memory_bytes=0)
    return None


async def open_embedder(
    settings: EmbeddingsSettings | None = None,
    *,
    shelf: VectorShelf | None = None,
    metrics: Metrics | None = None,
) -> CachedEmbedder:
    """Returns the embedder; ``shelf`` shares vectors between replicas.

    The bundled one starts its process when it is first asked. An endpoint whose length of vectors is not configured is
    asked for one; where it does not answer, its ``dimensions`` are known once it has answered something.
    """
    settings = settings or EmbeddingsSettings()
    if settings.base_url is None:
        engine = Batches(EmbedderProcess(settings.threads), settings.threads)
    else:
        engine = EndpointEngine(settings)
        if settings.dimensions is None:
            try:
                await engine.learn()
            except EmbedderUnavailableError as error:
                log.warning("the embedder does not answer yet", model=settings.name, error=str(error))
    return CachedEmbedder(engine, memory_bytes=settings.memory_bytes, shelf=shelf, metrics=metrics)
