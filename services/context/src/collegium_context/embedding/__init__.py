"""Texts to vectors: the bundled embedder, or any OpenAI-compatible endpoint."""

from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError, Vectors
from collegium_context.embedding.minilm import MiniLmEmbedder
from collegium_context.embedding.opening import open_embedder

__all__ = ["Embedder", "EmbedderUnavailableError", "MiniLmEmbedder", "Vectors", "open_embedder"]
