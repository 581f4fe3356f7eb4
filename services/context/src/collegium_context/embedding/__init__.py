"""Texts to vectors: the bundled embedder, or any OpenAI-compatible endpoint."""
