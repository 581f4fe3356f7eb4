"""Which embedder makes vectors that a generation's can be compared with.

One rule: vectors of another model, or of another length, are never compared; without their embedder words answer alone.
"""

from __future__ import annotations

from collegium_context.documents.generations import Generation
from collegium_context.embedding.bounded import Bounded
from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError


class Spaces:
    """The configured embedder, and the one of before where it can still be asked."""

    def __init__(self, current: Embedder, previous: Embedder | None = None) -> None:
        self.current = current
        self._previous = previous

    def bounded(self) -> Spaces:
        """Returns the same for those whose client waits: vectors soon, or none."""
        return Spaces(Bounded(self.current), Bounded(self._previous) if self._previous is not None else None)

    def embedder_of(self, generation: Generation) -> Embedder | None:
        """Returns the embedder of a generation's vectors, or none."""
        for embedder in (self.current, self._previous):
            if embedder is not None and _holds(generation, embedder):
                return embedder
        return None


def _holds(generation: Generation, embedder: Embedder) -> bool:
    try:
        return generation.holds(embedder.model, embedder.dimensions)
    except EmbedderUnavailableError:
        # It has not said yet how long its vectors are: it would refuse to embed as well.
        return generation.model == embedder.model
