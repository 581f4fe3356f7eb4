"""The embedded store as one object: its collections, and what each question does to them.

Synchronous and single-threaded: the owner calls it between two turns of its loop. One rule: what is refused is refused
before anything changed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from qdrant_edge import ScoredPoint

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import snapshots
from collegium_context.vectors.embedded.collection import STATE, Collection
from collegium_context.vectors.embedded.shards import DENSE, Prepared
from collegium_context.vectors.embedded.shelf import Sizes
from collegium_context.vectors.interface import (
    CollectionSpec,
    InvalidQuestionError,
    UnknownCollectionError,
    WrongDimensionError,
)
from collegium_context.vectors.keys import ID_FIELD, TENANT_FIELD

NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")
DIMENSIONS_MAX = 65_536
# Batches whose last part has not come: what a client left behind is dropped when others need the room.
BATCHES_OPEN_MAX = 64
PARTS_MAX = 64


class Engine:
    """Everything in one folder."""

    def __init__(self, folder: Path, sizes: Sizes | None = None) -> None:
        self.folder = folder
        self.sizes = sizes or Sizes()
        self._batches: OrderedDict[str, dict[int, wire.Rows]] = OrderedDict()
        found = sorted(folder.glob(f"collections/*/{STATE}"))
        self.collections = {path.parent.name: Collection(path.parent, self.sizes) for path in found}

    def collection(self, name: str) -> Collection:
        """Returns a collection; raises UnknownCollectionError."""
        found = self.collections.get(name)
        if found is None:
            raise UnknownCollectionError(f"there is no collection {name!r}")
        return found

    def ensure(self, spec: CollectionSpec) -> None:
        """Makes a collection where it is missing."""
        if NAME.match(spec.name) is None or not 1 <= spec.dimensions <= DIMENSIONS_MAX:
            raise InvalidQuestionError(f"no collection is made of {spec.name!r} with {spec.dimensions} dimensions")
        standing = self.collections.get(spec.name)
        if standing is None:
            self.collections[spec.name] = Collection(self.folder / "collections" / spec.name, self.sizes, spec)
        elif standing.spec.dimensions != spec.dimensions:
            raise WrongDimensionError(
                f"collection {spec.name} has {standing.spec.dimensions} dimensions, not {spec.dimensions}"
            )

    def unmake(self, name: str) -> Path:
        """Takes a collection away, its snapshots first, and returns the folder that may be removed."""
        folder = self.folder / "collections" / name
        if (found := self.collections.pop(name, None)) is not None:
            snapshots.remove_all(self.folder, name)
            found.close()
            # Without it the folder is no collection at the next start.
            (folder / STATE).unlink()
        return folder

    def collect(self, question: wire.Put) -> list[wire.Rows]:
        """Takes a part of a batch; returns the whole batch with its last part, before that nothing."""
        collection = self.collection(question.collection)
        rows = question.rows
        collection.check(rows.vectors, len(rows.vector_rows))
        if question.parts == 1:
            return [rows]
        if not 0 <= question.part < question.parts <= PARTS_MAX:
            raise InvalidQuestionError(f"part {question.part} of {question.parts}")
        batch = self._batches.setdefault(question.batch, {})
        batch[question.part] = rows
        if len(batch) < question.parts:
            while len(self._batches) > BATCHES_OPEN_MAX:
                self._batches.popitem(last=False)
            return []
        del self._batches[question.batch]
        return [batch[part] for part in range(question.parts)]

    def put(self, question: wire.Put, made: Sequence[Prepared]) -> None:
        """Adds or replaces a batch, whole."""
        self.collection(question.collection).add(question.tenant, made)

    def drop(self, question: wire.Drop) -> bool:
        """Removes points by id, or a page of those that a filter chooses; true where there may be more."""
        collection = self.collection(question.collection)
        if question.ids:
            collection.drop_ids(question.tenant, question.ids)
        return question.where is not None and collection.drop_page(question.tenant, question.where)

    def look(self, question: wire.Look) -> wire.Found:
        """Answers a question."""
        return _found(*self.collection(question.collection).look(question))

    def count(self, question: wire.Count) -> int:
        """Counts a tenant's points."""
        return self.collection(question.collection).count(question.tenant, question.where)

    async def sync(self, name: str) -> None:
        """Returns once a collection's changes outlive a loss of power."""
        for generation in self.collection(name).generations.values():
            for shelf in generation.shelves:
                for part in shelf.parts[-2:]:  # the one before it, where the last change opened a new one
                    await part.journal.sync()

    def close(self) -> None:
        """Lets go of files."""
        for collection in self.collections.values():
            collection.close()


def _found(dense: list[ScoredPoint], words: list[ScoredPoint]) -> wire.Found:
    points: list[wire.FoundPoint] = []
    places: dict[str, int] = {}

    def ranked(hits: list[ScoredPoint]) -> list[tuple[int, float]]:
        made: list[tuple[int, float]] = []
        for hit in hits:
            payload = dict(hit.payload or {})
            payload.pop(TENANT_FIELD, None)
            text = str(payload.pop(ID_FIELD))
            if text not in places:
                places[text] = len(points)
                vector = hit.vector.get(DENSE) if isinstance(hit.vector, dict) else None
                raw = None if vector is None else np.asarray(vector, dtype="<f4").tobytes()
                points.append(wire.FoundPoint(wire.id_bytes(text), payload, raw))
            made.append((places[text], hit.score))
        return made

    return wire.Found(points=points, dense=ranked(dense), words=ranked(words))
