"""What context asks of a vector store: points in, ranked ids out, always within a scope.

Two adapters stand behind :class:`VectorStore`: the embedded engine and a Qdrant server; one contract test holds both.
Vectors and payloads hold no readable text: content stays sealed in PostgreSQL under the tenant's key, and a hit names
it by id. One rule: what :meth:`VectorStore.upsert` and :meth:`VectorStore.delete` returned from is durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from collegium_contracts.scope import Scope

from collegium_context.errors import ContextError

# A vector of float32, L2-normalised; the number of dimensions is the collection's.
Vector = np.ndarray[tuple[int], np.dtype[np.float32]]
PayloadValue = str | int | float | bool | list[str]


class VectorStoreError(ContextError):
    """The vector store refused or failed; ``code`` says how."""


class WrongDimensionError(VectorStoreError):
    """A vector has another number of dimensions than its collection."""

    code = "wrong_dimension"


class StoreLockedError(VectorStoreError):
    """Another process owns the folder of the embedded store."""

    code = "store_locked"


class StoreUnavailableError(VectorStoreError):
    """The store does not answer now; callers fall back to words alone, or say so."""

    code = "vector_store_unavailable"


class UnknownCollectionError(VectorStoreError):
    """No collection of this name has been made."""

    code = "unknown_collection"


class InvalidQuestionError(VectorStoreError):
    """What was asked of the store is out of its bounds; the text says which."""

    code = "invalid_value"


class CollectionSpec(msgspec.Struct, frozen=True):
    """A collection as it is made; ``keyword_fields`` and ``integer_fields`` get payload indexes.

    ``average_words`` and ``language`` (for stop words and stems) are BM25's, and belong to what is kept.
    """

    name: str
    dimensions: int
    keyword_fields: tuple[str, ...] = ()
    integer_fields: tuple[str, ...] = ()
    has_words: bool = True
    """Whether a sparse BM25 vector is kept beside the dense one."""
    quantized: bool = False
    average_words: int = 256
    language: str = "english"


class Point(msgspec.Struct, frozen=True):
    """One thing to be found: ``id`` is a UUID, ``words`` the text that BM25 sees (only its sparse vector is kept)."""

    id: str
    vector: Vector | None
    words: str | None = None
    payload: dict[str, PayloadValue] = {}


class Equals(msgspec.Struct, frozen=True, tag=True):
    """A field equals one of the values."""

    field: str
    values: tuple[str | int | bool, ...]


class Between(msgspec.Struct, frozen=True, tag=True):
    """A number is within bounds, both included unless ``is_above`` and ``is_below`` leave them out; none: open."""

    field: str
    low: float | None = None
    high: float | None = None
    is_above: bool = False
    is_below: bool = False


class AnyOf(msgspec.Struct, frozen=True, tag=True):
    """At least one of some filters."""

    filters: tuple[Where, ...]


Condition = Equals | Between | AnyOf


class Where(msgspec.Struct, frozen=True):
    """A filter: all of ``must``, none of ``must_not``; what lacks a field equals nothing and lies in no bounds."""

    must: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()


class Hit(msgspec.Struct, frozen=True):
    """A point that was found: ``score`` is the signal's own (cosine, BM25)."""

    id: str
    score: float
    payload: dict[str, PayloadValue] = {}
    vector: Vector | None = None


class Looked(msgspec.Struct, frozen=True):
    """Both signals of one question, best first; fusing them is the searcher's business."""

    dense: tuple[Hit, ...] = ()
    words: tuple[Hit, ...] = ()


class VectorStore(Protocol):
    """Points by collection and tenant; every call takes the scope whose points it may touch."""

    async def ensure(self, spec: CollectionSpec) -> None:
        """Makes the collection where it is missing; raises :class:`WrongDimensionError` where it stands otherwise."""
        ...

    async def upsert(self, scope: Scope, collection: str, points: Sequence[Point]) -> None:
        """Adds or replaces points of the scope's tenant; durable when it returns."""
        ...

    async def delete(
        self, scope: Scope, collection: str, *, ids: Sequence[str] = (), where: Where | None = None
    ) -> None:
        """Removes points of the scope's tenant by id or by filter."""
        ...

    async def look(
        self,
        scope: Scope,
        collection: str,
        *,
        vector: Vector | None = None,
        words: str | None = None,
        where: Where | None = None,
        limit: int = 10,
        with_vectors: bool = False,
    ) -> Looked:
        """Finds the nearest points by vector and by words, each list of at most ``limit``, in one round trip."""
        ...

    async def count(self, scope: Scope, collection: str, where: Where | None = None) -> int:
        """Counts the points of the scope's tenant."""
        ...

    async def names(self) -> list[str]:
        """Names the collections that stand."""
        ...

    async def drop(self, collection: str) -> None:
        """Takes a collection away with its snapshots; one that is not there is gone."""
        ...

    async def forget(self, scope: Scope) -> None:
        """Removes every point of the tenant from every collection, snapshots included."""
        ...

    async def close(self) -> None:
        """Lets go of connections; nothing is lost."""
        ...
