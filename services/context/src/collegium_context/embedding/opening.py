"""The embedder that the configuration asks for."""

from __future__ import annotations

from collegium_settings.settings import EmbeddingsSettings

from collegium_context.embedding.interface import Embedder
from collegium_context.embedding.minilm import MiniLmEmbedder


async def open_embedder(settings: EmbeddingsSettings | None = None) -> Embedder:
    """Returns the embedder, ready to work; raises EmbedderUnavailableError where its files are missing."""
    return await MiniLmEmbedder.open()
