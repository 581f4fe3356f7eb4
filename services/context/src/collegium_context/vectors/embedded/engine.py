"""The embedded store as one object: collections, their shelves, and what each question does to them.

Synchronous and single-threaded: the owner calls it between two turns of its loop. One rule: what is refused is refused
before anything changed.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import msgspec
import numpy as np
from qdrant_edge import ScoredPoint

from collegium_context.vectors import wire
from collegium_context.vectors.embedded.filters import ID_FIELD, TENANT_FIELD, key_of
from collegium_context.vectors.embedded.shelf import Shelf
from collegium_context.vectors.interface import (
    CollectionSpec,
    InvalidQuestionError,
    UnknownCollectionError,
    WrongDimensionError,
)

NAME = re.compile(r"[a-z0-9_-]{1,64}\Z")
LIMIT_MAX = 1_000
# Batches whose last part has not come: what a client left behind is dropped when others need the room.
BATCHES_OPEN_MAX = 64
PARTS_MAX = 64


class Collection:
    """A collection: its spec and its shelf."""

    def __init__(self, folder: Path, spec: CollectionSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.shelf = Shelf(folder / "shared", spec)


class Engine:
    """Everything in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: OrderedDict[str, dict[int, wire.Rows]] = OrderedDict()
        self.collections: dict[str, Collection] = {}
        for spec_file in sorted(folder.glob("collections/*/spec.json")):
            spec = msgspec.json.decode(spec_file.read_bytes(), type=CollectionSpec)
            self.collections[spec.name] = Collection(spec_file.parent, spec)

    def collection(self, name: str) -> Collection:
        """Returns a collection; raises UnknownCollectionError."""
        found = self.collections.get(name)
        if found is None:
            raise UnknownCollectionError(f"there is no collection {name!r}")
        return found

    def ensure(self, spec: CollectionSpec) -> None:
        """Makes a collection where it is missing."""
        if NAME.match(spec.name) is None or not 1 <= spec.dimensions <= 65_536:
            raise InvalidQuestionError(
                f"a collection cannot be made of {spec.name!r} with {spec.dimensions} dimensions"
            )
        standing = self.collections.get(spec.name)
        if standing is not None:
            if standing.spec.dimensions != spec.dimensions:
                raise WrongDimensionError(
                    f"collection {spec.name} has {standing.spec.dimensions} dimensions, not {spec.dimensions}; re-index it"
                )
            return
        folder = self._folder / "collections" / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "spec.new"
        draft.write_bytes(msgspec.json.encode(spec))
        draft.replace(folder / "spec.json")
        self.collections[spec.name] = Collection(folder, spec)

    def put(self, question: wire.Put) -> int:
        """Takes a part of a batch; with its last part the whole batch takes effect."""
        collection = self.collection(question.collection)
        rows = question.rows
        if len(rows.vectors) != 4 * collection.spec.dimensions * len(rows.vector_rows):
            raise WrongDimensionError(f"collection {collection.spec.name} has {collection.spec.dimensions} dimensions")
        if question.parts == 1:
            collection.shelf.add(question.tenant, [rows])
            return len(rows)
        if not (0 <= question.part < question.parts <= PARTS_MAX):
            raise InvalidQuestionError(f"part {question.part} of {question.parts}")
        batch = self._batches.setdefault(question.batch, {})
        batch[question.part] = rows
        if len(batch) < question.parts:
            while len(self._batches) > BATCHES_OPEN_MAX:
                self._batches.popitem(last=False)
            return 0
        del self._batches[question.batch]
        collection.shelf.add(question.tenant, [batch[part] for part in range(question.parts)])
        return sum(len(part) for part in batch.values())

    def drop(self, question: wire.Drop) -> bool:
        """Removes points by id, or a page of those that a filter chooses; true where there may be more."""
        shelf = self.collection(question.collection).shelf
        if question.ids:
            places = range(0, len(question.ids), wire.ID_BYTES)
            shelf.drop([key_of(question.tenant, question.ids[place : place + wire.ID_BYTES]) for place in places])
        if question.where is None:
            return False
        keys = shelf.keys(question.tenant, question.where)
        shelf.drop(keys)
        return bool(keys)

    def look(self, question: wire.Look) -> wire.Found:
        """Answers a question."""
        collection = self.collection(question.collection)
        if not 1 <= question.limit <= LIMIT_MAX:
            raise InvalidQuestionError(f"limit: from 1 to {LIMIT_MAX}")
        vector = None
        if question.vector is not None:
            if len(question.vector) != 4 * collection.spec.dimensions:
                raise WrongDimensionError(
                    f"collection {collection.spec.name} has {collection.spec.dimensions} dimensions"
                )
            vector = np.frombuffer(question.vector, dtype="<f4").tolist()
        return _found(*collection.shelf.look(question, vector))

    def count(self, question: wire.Count) -> int:
        """Counts a tenant's points."""
        return self.collection(question.collection).shelf.count(question.tenant, question.where)

    def forget(self, tenant: str) -> bool:
        """Removes a page of a tenant's points from every collection; true where there may be more."""
        more = False
        for collection in self.collections.values():
            if keys := collection.shelf.keys(tenant, None):
                collection.shelf.drop(keys)
                more = True
        return more

    async def sync(self, name: str) -> None:
        """Returns once a collection's journal outlives a loss of power."""
        await self.collection(name).shelf.journal.sync()

    def close(self) -> None:
        """Lets go of files."""
        for collection in self.collections.values():
            collection.shelf.close()


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
                vector = hit.vector.get("dense") if isinstance(hit.vector, dict) else None
                raw = None if vector is None else np.asarray(vector, dtype="<f4").tobytes()
                points.append(wire.FoundPoint(wire.id_bytes(text), payload, raw))
            made.append((places[text], hit.score))
        return made

    return wire.Found(points=points, dense=ranked(dense), words=ranked(words))
