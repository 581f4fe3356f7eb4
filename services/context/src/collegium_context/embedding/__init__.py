"""Texts to vectors: the bundled embedder, or any OpenAI-compatible endpoint."""

from collegium_context.embedding.interface import Counted, Embedder, EmbedderUnavailableError, Vectors

__all__ = ["Counted", "Embedder", "EmbedderUnavailableError", "Vectors"]
