"""One part of a shelf: a journal of points, a shard of the engine made of it, and what BM25 counts of them.

The open part takes points into a plain shard; a built part has a shard that the indexer made, with graphs, or at first
without them where much was added at once. What leaves a part later, because it was deleted or a newer part has it, is
noted in ``dead``. The shard is derived: it is never flushed here (that would hold the interpreter for a tenth of a
second), and what a kill undoes in it is done again from the journals. One rule: a point that is in ``dead`` never comes
back to this part.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from qdrant_edge import (
    CountRequest,
    EdgeShard,
    Filter,
    Query,
    QueryRequest,
    ScoredPoint,
    ScrollRequest,
    SparseVector,
    UpdateOperation,
)

from collegium_context.vectors.embedded import journal as journals
from collegium_context.vectors.embedded import scratch, shards
from collegium_context.vectors.embedded.frequencies import Frequencies
from collegium_context.vectors.embedded.journal import Journal
from collegium_context.vectors.embedded.shards import DENSE, POINTS_A_STEP, WORDS, Prepared
from collegium_context.vectors.interface import CollectionSpec

JOURNAL = "journal"
DEAD = "dead"
BUILT = "built"
FLAT = "flat"
STEMS = "stems"
KEY_BYTES = 16


class Signals(msgspec.Struct, frozen=True):
    """What a question looks for in a part; ``words`` are weighed already."""

    chosen: Filter
    limit: int
    vector: list[float] | None = None
    words: SparseVector | None = None
    with_vectors: bool = False


class Part:
    """Points in one shard; made by opening its folder."""

    def __init__(self, folder: Path, spec: CollectionSpec) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = folder.name
        self._live: Path | None = None
        self.is_built = (folder / BUILT).is_dir()
        self.has_graphs = self.is_built and not (folder / FLAT).exists()
        self.journal = Journal(folder / JOURNAL)
        self.dead = Journal(folder / DEAD)
        if self.is_built:
            self.shard = EdgeShard.load(str(folder / BUILT))
            self.frequencies = Frequencies.load(folder / STEMS)
        else:
            self._live = scratch.place_of(folder)
            self.shard = shards.create(self._live, spec)
            self.frequencies = Frequencies()

    @property
    def points(self) -> int:
        """How many points were put here, those included that left since."""
        return self.frequencies.points

    @property
    def dead_bytes(self) -> int:
        """How long the ``dead`` file is now."""
        return self.dead.size

    @property
    def gone(self) -> int:
        """How many points left since it was closed, roughly."""
        return self.dead.size // KEY_BYTES

    def bury(self) -> None:
        """Takes out what is noted as dead; for opening."""
        end = 0
        for keys, end in dead_keys(self.folder / DEAD):  # noqa: B007 - where the whole records end
            self._remove(keys)
        self.dead.cut(end)

    def put(self, tenant: str, made: Prepared) -> None:
        """Adds or replaces points."""
        for step in made.steps:
            self.shard.update(step)
        rows = made.rows
        self.frequencies.add(tenant, len(rows), len(rows.word_rows), shards.indices_of(rows))

    def drop(self, keys: Sequence[bytes], *, note: bool) -> None:
        """Removes the points that are here; ``note`` where the part's own journal does not say so."""
        here = self.held(keys)
        if not here:
            return
        if note:
            self.dead.append(b"".join(here))
        self._remove(here)

    def _remove(self, keys: Sequence[bytes]) -> None:
        for start in range(0, len(keys), POINTS_A_STEP):
            chosen = keys[start : start + POINTS_A_STEP]
            self.shard.update(UpdateOperation.delete_points([uuid.UUID(bytes=raw) for raw in chosen]))

    def held(self, keys: Sequence[bytes]) -> list[bytes]:
        """Returns those of the keys whose points are here."""
        here: list[bytes] = []
        for start in range(0, len(keys), POINTS_A_STEP):
            asked: list[int | uuid.UUID | str] = [uuid.UUID(bytes=raw) for raw in keys[start : start + POINTS_A_STEP]]
            found = self.shard.retrieve(asked, with_payload=False, with_vector=False)
            here += [shards.key_in(record.id) for record in found]
        return here

    def look(self, signals: Signals) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
        """Returns the nearest points by vector and by words, best first."""
        dense = [] if signals.vector is None else self._query(Query.Nearest(signals.vector, using=DENSE), signals)
        words = [] if signals.words is None else self._query(Query.Nearest(signals.words, using=WORDS), signals)
        return dense, words

    def _query(self, query: Query, signals: Signals) -> list[ScoredPoint]:
        return self.shard.query(
            QueryRequest(
                limit=signals.limit,
                query=query,
                filter=signals.chosen,
                with_payload=True,
                with_vector=[DENSE] if signals.with_vectors else False,
            )
        )

    def count(self, chosen: Filter) -> int:
        """Counts the points that a filter chooses."""
        return self.shard.count(CountRequest(exact=True, filter=chosen))

    def keys(self, chosen: Filter, limit: int) -> list[bytes]:
        """Returns keys of points that a filter chooses, at most ``limit``."""
        found, _ = self.shard.scroll(ScrollRequest(limit=limit, filter=chosen, with_payload=False, with_vector=False))
        return [shards.key_in(record.id) for record in found]

    def pages(self, chosen: Filter, size: int) -> Iterator[list[bytes]]:
        """Yields the keys of all points that a filter chooses, by page; nothing may be removed meanwhile."""
        offset: int | uuid.UUID | str | None = None
        while True:
            request = ScrollRequest(offset=offset, limit=size, filter=chosen, with_payload=False, with_vector=False)
            found, offset = self.shard.scroll(request)
            if found:
                yield [shards.key_in(record.id) for record in found]
            if offset is None:
                return

    def close(self) -> None:
        """Lets go of files; the shard goes with its last reference, unflushed."""
        self.journal.close()
        self.dead.close()
        del self.shard
        if self._live is not None:
            shutil.rmtree(self._live, ignore_errors=True)


def dead_keys(path: Path, start: int = 0, limit: int | None = None) -> Iterable[tuple[list[bytes], int]]:
    """Yields the keys of each record of a ``dead`` file between two places, and where the record ends."""
    for body, end in journals.records(path, limit, start=start):
        yield [body[place : place + KEY_BYTES] for place in range(0, len(body), KEY_BYTES)], end
