"""What context asks of an embedder.

One rule: a vector belongs to the model that made it, so every vector is kept with :attr:`Embedder.model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from collegium_contracts.scope import Scope

from collegium_context.errors import ContextError

# Rows of float32, each L2-normalised: (texts, dimensions).
Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class EmbedderUnavailableError(ContextError):
    """Texts cannot be embedded now; callers fall back to words alone, or say so."""

    code = "embedder_unavailable"


class Counted(NamedTuple):
    """Vectors, and what each text came to in tokens: special ones included, and what was cut off not."""

    vectors: Vectors
    tokens: list[int]


class Embedder(Protocol):
    """Embeds texts; safe to be called by many tasks at once, which share batches.

    With a ``scope``, vectors are kept for a while and found again for the same tenant alone; without one nothing is
    kept.
    """

    @property
    def model(self) -> str:
        """The name of the model, as it is kept beside its vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has; raises :class:`EmbedderUnavailableError` while that is not known."""
        ...

    async def embed(self, texts: Sequence[str], *, scope: Scope | None = None) -> Vectors:
        """Returns one vector a text, in order; raises :class:`EmbedderUnavailableError`."""
        ...

    async def embed_counted(self, texts: Sequence[str], *, scope: Scope | None = None) -> Counted:
        """Returns vectors and tokens, one a text, in order; raises :class:`EmbedderUnavailableError`."""
        ...

    async def close(self) -> None:
        """Lets go of processes and connections; who waits is refused."""
        ...


def space_of(embedder: Embedder) -> str:
    """Names the space of an embedder's vectors: those of two spaces are never compared.

    Raises :class:`EmbedderUnavailableError` while their length is not known.
    """
    return f"{embedder.model}/{embedder.dimensions}"


class Engine(Protocol):
    """What computes vectors, without a cache: an :class:`Embedder` stands before it."""

    @property
    def model(self) -> str:
        """The name of the model."""
        ...

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has; raises :class:`EmbedderUnavailableError` while that is not known."""
        ...

    @property
    def waiting(self) -> int:
        """How many texts wait to be taken up."""
        ...

    async def compute(self, texts: Sequence[str]) -> Counted:
        """Returns vectors and tokens, one a text, in order; raises :class:`EmbedderUnavailableError`."""
        ...

    async def close(self) -> None:
        """Lets go of processes and connections; who waits is refused."""
        ...
