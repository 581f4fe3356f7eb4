"""A collection: its generations, and in each the shelf that small tenants share and those of tenants of their own.

Every generation that is kept gets every change, so that switching between them, in either direction, loses nothing.
A tenant that is moving out has its new points on its own shelf and the older ones still on the shared one; both are
asked, until what the indexer made of the older ones is put into its own and, in the same turn, the shared one is asked
no more. One rule: what stands in ``collection.json`` decides what is asked; everything else is files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from qdrant_edge import ScoredPoint

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import shelf as shelves
from collegium_context.vectors.embedded.shards import Prepared
from collegium_context.vectors.embedded.shelf import Shelf, Sizes
from collegium_context.vectors.interface import CollectionSpec, InvalidQuestionError, Where, WrongDimensionError
from collegium_context.vectors.keys import key_of

STATE = "collection.json"
SHARED = "shared"
OWN = "tenants"
LIMIT_MAX = 1_000
# Each of them gets every change.
GENERATIONS_MAX = 3

Place = Literal["moving", "own"]


class GenerationState(msgspec.Struct, frozen=True):
    """A generation as it is kept: how it is made, whether it is whole, and the tenants with shelves of their own."""

    spec: CollectionSpec
    is_whole: bool = True
    tenants: dict[str, Place] = {}


class CollectionState(msgspec.Struct, frozen=True):
    """A collection as it is kept: its generations by name, the one that answers, and the number of the next."""

    serving: str
    generations: dict[str, GenerationState]
    next: int = 2


class Generation:
    """One generation's shelves."""

    def __init__(self, folder: Path, state: GenerationState, sizes: Sizes) -> None:
        self.folder = folder
        self.state = state
        self.sizes = sizes
        self.shared = Shelf(folder / SHARED, state.spec, sizes)
        self.own = {tenant: self.open_own(tenant) for tenant in state.tenants}

    def open_own(self, tenant: str) -> Shelf:
        """Opens, or makes, the shelf of one tenant."""
        return Shelf(self.folder / OWN / tenant, self.state.spec, self.sizes)

    @property
    def shelves(self) -> list[Shelf]:
        """All shelves."""
        return [self.shared, *self.own.values()]

    def asked(self, tenant: str) -> list[Shelf]:
        """The shelves that a tenant's points stand on."""
        place = self.state.tenants.get(tenant)
        if place is None:
            return [self.shared]
        return [self.own[tenant]] if place == "own" else [self.shared, self.own[tenant]]

    def add(self, tenant: str, made: Sequence[Prepared]) -> None:
        """Adds or replaces a batch."""
        *older, home = self.asked(tenant)
        home.add(tenant, made)
        for shelf in older:
            for one in made:
                shelf.drop(one.keys)

    def drop(self, tenant: str, keys: Sequence[bytes]) -> None:
        """Removes points."""
        for shelf in self.asked(tenant):
            shelf.drop(keys)

    def settle_move(self, tenant: str) -> None:
        """Does again, after a start, what of a move may have been cut off between its two shelves."""
        for keys in self.own[tenant].pages(tenant):
            self.shared.drop(keys)

    def close(self) -> None:
        """Lets go of files."""
        for shelf in self.shelves:
            shelf.close()


class Collection:
    """A collection that is open."""

    def __init__(self, folder: Path, sizes: Sizes, spec: CollectionSpec | None = None) -> None:
        self.folder = folder
        self._sizes = sizes
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / STATE
        if saved.exists():
            self.state = msgspec.json.decode(saved.read_bytes(), type=CollectionState)
        else:
            assert spec is not None
            self.state = CollectionState(serving="g1", generations={"g1": GenerationState(spec)})
            self.save()
        self._clear()
        self.generations = {
            name: Generation(folder / name, state, sizes) for name, state in self.state.generations.items()
        }
        for generation in self.generations.values():
            for tenant, place in generation.state.tenants.items():
                if place == "moving":
                    generation.settle_move(tenant)

    def _clear(self) -> None:
        """Takes away what a kill left: generations that were not whole, and folders that nobody names."""
        whole = {name: state for name, state in self.state.generations.items() if state.is_whole}
        if len(whole) < len(self.state.generations):
            self.state = msgspec.structs.replace(self.state, generations=whole)
            self.save()
        for found in self.folder.iterdir():
            if found.is_dir() and found.name not in whole:
                shutil.rmtree(found)
        for name, state in whole.items():
            for found in (self.folder / name / OWN).glob("*"):
                if found.name not in state.tenants:
                    shutil.rmtree(found)

    def save(self) -> None:
        """Writes what stands, whole or not at all."""
        draft = self.folder / f"{STATE}.new"
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(self.state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / STATE)

    def change(self, name: str, **fields: object) -> None:
        """Changes a generation's state, on disk first."""
        generation = self.generations[name]
        changed = msgspec.structs.replace(generation.state, **fields)
        generations = {**self.state.generations, name: changed}
        self.state = msgspec.structs.replace(self.state, generations=generations)
        self.save()
        generation.state = changed

    @property
    def serving(self) -> Generation:
        """The generation that answers."""
        return self.generations[self.state.serving]

    @property
    def spec(self) -> CollectionSpec:
        """How the generation that answers was made."""
        return self.serving.state.spec

    def check(self, vectors: bytes, count: int) -> None:
        """Raises WrongDimensionError where the bytes are not so many vectors of this collection."""
        if len(vectors) != 4 * self.spec.dimensions * count:
            raise WrongDimensionError(f"collection {self.spec.name} has {self.spec.dimensions} dimensions")

    def add(self, tenant: str, made: Sequence[Prepared]) -> None:
        """Adds or replaces a batch in every generation, the one that answers last."""
        for generation in self._in_order():
            generation.add(tenant, made)

    def _in_order(self) -> list[Generation]:
        return sorted(self.generations.values(), key=lambda one: one is self.serving)

    def drop_ids(self, tenant: str, ids: bytes) -> None:
        """Removes points by id."""
        keys = [key_of(tenant, ids[place : place + wire.ID_BYTES]) for place in range(0, len(ids), wire.ID_BYTES)]
        for generation in self._in_order():
            generation.drop(tenant, keys)

    def drop_page(self, tenant: str, where: Where | None) -> bool:
        """Removes a page of the points that a filter chooses; true where there may be more."""
        more = False
        for generation in self._in_order():
            keys = [key for shelf in generation.asked(tenant) for key in shelf.keys(tenant, where)]
            if keys:
                generation.drop(tenant, keys)
                more = True
        return more

    def look(self, question: wire.Look) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
        """Returns the nearest points by vector and by words, best first."""
        if not 1 <= question.limit <= LIMIT_MAX:
            raise InvalidQuestionError(f"limit: from 1 to {LIMIT_MAX}")
        vector: list[float] | None = None
        if question.vector is not None:
            self.check(question.vector, 1)
            vector = np.frombuffer(question.vector, dtype="<f4").tolist()
        return shelves.look(self.serving.asked(question.tenant), question, vector)

    def count(self, tenant: str, where: Where | None) -> int:
        """Counts a tenant's points."""
        return sum(shelf.count(tenant, where) for shelf in self.serving.asked(tenant))

    def begin(self, spec: CollectionSpec, tenants: dict[str, Place]) -> str:
        """Makes a further, empty generation, which gets every change from now on; returns its name."""
        if len(self.generations) >= GENERATIONS_MAX:
            raise InvalidQuestionError(f"collection {self.spec.name} has {GENERATIONS_MAX} generations; discard one")
        name = f"g{self.state.next}"
        state = GenerationState(spec, is_whole=False, tenants=tenants)
        generations = {**self.state.generations, name: state}
        self.state = msgspec.structs.replace(self.state, generations=generations, next=self.state.next + 1)
        self.save()
        self.generations[name] = Generation(self.folder / name, state, self._sizes)
        return name

    def switch(self, name: str) -> None:
        """Lets another generation answer."""
        if name not in self.generations or not self.generations[name].state.is_whole:
            raise InvalidQuestionError(f"collection {self.spec.name} has no whole generation {name!r}")
        self.state = msgspec.structs.replace(self.state, serving=name)
        self.save()

    def discard(self, name: str) -> None:
        """Takes a generation away, which must not be the one that answers."""
        if name == self.state.serving or name not in self.generations:
            raise InvalidQuestionError(f"generation {name!r} is not there, or answers")
        generations = {other: state for other, state in self.state.generations.items() if other != name}
        self.state = msgspec.structs.replace(self.state, generations=generations)
        self.save()
        self.generations.pop(name).close()
        shutil.rmtree(self.folder / name)

    def close_tenant(self, name: str, tenant: str) -> None:
        """Takes away a tenant's own shelf, with everything on it."""
        generation = self.generations[name]
        if tenant not in generation.state.tenants:
            return
        left = {other: place for other, place in generation.state.tenants.items() if other != tenant}
        self.change(name, tenants=left)
        shelf = generation.own.pop(tenant)
        shelf.close()
        shutil.rmtree(shelf.folder, ignore_errors=True)

    def close(self) -> None:
        """Lets go of files."""
        for generation in self.generations.values():
            generation.close()
