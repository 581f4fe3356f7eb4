"""What context asks of an embedder.

One rule: a vector belongs to the model that made it, so every vector is kept with :attr:`Embedder.model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from collegium_context.errors import ContextError

# Rows of float32, each L2-normalised: (texts, dimensions).
Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class EmbedderUnavailableError(ContextError):
    """Texts cannot be embedded now; callers fall back to words alone, or say so."""

    code = "embedder_unavailable"


class Embedder(Protocol):
    """Embeds texts; safe to be called by many tasks at once, which share batches."""

    @property
    def model(self) -> str:
        """The name of the model, as it is kept beside its vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Returns one vector a text, in order; raises :class:`EmbedderUnavailableError`."""
        ...

    async def close(self) -> None:
        """Lets go of threads and connections; who waits is refused."""
        ...
