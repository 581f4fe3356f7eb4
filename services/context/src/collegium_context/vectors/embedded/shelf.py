"""A shelf: the points of one collection generation, or of one tenant's share of it, in parts.

New points go to the last part, the open one, whose journal is written first; the parts before it only lose points. A
point stands in one part: what is added is removed from the others in the same turn of the loop, so that no question
sees it twice or not at all, and opening the shelf does the same again from the journals. Parts are told apart only by
what is in them, so the indexer may build any closed ones into a new one. One rule: a record in the open journal is the
moment at which a change happened; everything else can be made again from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from collegium_contracts.base import Message
from collegium_contracts.codec import Codec, encode
from qdrant_edge import ScoredPoint, SparseVector

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import frequencies as counting
from collegium_context.vectors.embedded import journal as journals
from collegium_context.vectors.embedded import shards
from collegium_context.vectors.embedded.filters import of_tenant
from collegium_context.vectors.embedded.part import JOURNAL, Part, Signals
from collegium_context.vectors.embedded.shards import Prepared
from collegium_context.vectors.interface import CollectionSpec, Where
from collegium_context.vectors.words import Sparse

MANIFEST = "manifest.json"
# Keys of one record, and of one page of a deletion by filter.
KEYS_A_RECORD = 1_000


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """When something grows out of its place: the open part, a tenant on the shared shelf, what one job builds.

    A plain shard of ``open_points`` is scanned in 2 to 4 ms, and filled again in 2 s when its owner was killed. Above
    ``own_points`` a tenant gets a shelf, and so graphs, of its own. The indexer is given up to ``job_points`` at once:
    some minutes of one core.
    """

    open_points: int = 10_000
    own_points: int = 50_000
    job_points: int = 250_000


class Added(Message, frozen=True, kw_only=True):
    """A batch of points, kept whole."""

    tenant: str
    rows: list[wire.Rows]


class Dropped(Message, frozen=True, kw_only=True):
    """Points that were removed, by key."""

    keys: list[bytes]


Record = Added | Dropped
record_codec: Codec[Record] = Codec(Record)


class Manifest(msgspec.Struct, frozen=True):
    """The parts of a shelf, oldest first, and the number of the next one."""

    parts: tuple[str, ...] = ("00000001",)
    next: int = 2


class Shelf:
    """Parts that are asked and changed as one."""

    def __init__(self, folder: Path, spec: CollectionSpec, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.spec = spec
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / MANIFEST
        self._manifest = msgspec.json.decode(saved.read_bytes(), type=Manifest) if saved.exists() else Manifest()
        self._save()
        for found in folder.iterdir():
            if found.is_dir() and found.name not in self._manifest.parts:
                shutil.rmtree(found)  # what a job left unfinished, or what it replaced
        self.parts = [Part(folder / name, spec) for name in self._manifest.parts]
        self._replay()

    def _replay(self) -> None:
        for part in self.parts:
            if part.is_built:
                part.bury()
        for place, part in enumerate(self.parts):
            if part.is_built:
                continue
            end = 0
            for body, end in journals.records(part.folder / JOURNAL):  # noqa: B007 - where the whole records end
                record = record_codec.decode(body)
                if isinstance(record, Dropped):
                    self._take_out(record.keys, self.parts[: place + 1])
                else:
                    made = [shards.prepared(record.tenant, rows) for rows in record.rows]
                    self._take_in(record.tenant, made, self.parts[: place + 1])
            part.journal.cut(end)
            part.bury()

    @property
    def open(self) -> Part:
        """The part that takes points."""
        return self.parts[-1]

    @property
    def points(self) -> int:
        """How many points there are, roughly: what was replaced within an open part counts twice."""
        return sum(part.points - part.gone for part in self.parts)

    def _save(self) -> None:
        draft = self.folder / f"{MANIFEST}.new"
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(self._manifest))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / MANIFEST)

    @staticmethod
    def _take_out(keys: Sequence[bytes], known: Sequence[Part]) -> None:
        *older, last = known
        last.drop(keys, note=False)
        for part in older:
            part.drop(keys, note=True)

    @staticmethod
    def _take_in(tenant: str, made: Sequence[Prepared], known: Sequence[Part]) -> None:
        *older, last = known
        for one in made:
            last.put(tenant, one)
            for part in older:
                part.drop(one.keys, note=True)

    def add(self, tenant: str, made: Sequence[Prepared]) -> None:
        """Adds or replaces a batch of points, whole."""
        self.open.journal.append(encode(Added(tenant=tenant, rows=[one.rows for one in made])))
        self._take_in(tenant, made, self.parts)
        if self.open.points >= self.sizes.open_points:
            self.rotate()

    def drop(self, keys: Sequence[bytes]) -> None:
        """Removes points by key."""
        for start in range(0, len(keys), KEYS_A_RECORD):
            some = keys[start : start + KEYS_A_RECORD]
            if any(part.held(some) for part in self.parts):
                self.open.journal.append(encode(Dropped(keys=list(some))))
                self._take_out(some, self.parts)

    def rotate(self) -> None:
        """Closes the open part, unless it is empty, and opens another."""
        if self.open.journal.size == 0:
            return
        name = self.next_name()
        part = Part(self.folder / name, self.spec)
        self._manifest = msgspec.structs.replace(self._manifest, parts=(*self._manifest.parts, name))
        self._save()
        self.parts.append(part)

    def next_name(self) -> str:
        """Takes the next name of a part; a name is not used twice."""
        number = self._manifest.next
        self._manifest = msgspec.structs.replace(self._manifest, next=number + 1)
        return f"{number:08}"

    def adopt(self, part: Part, replaced: Sequence[str]) -> list[Part]:
        """Puts a built part into the place of others, and returns those; their files may go."""
        gone = [one for one in self.parts if one.name in replaced]
        left = [one for one in self.parts if one.name not in replaced]
        built = [one for one in left if one.is_built]
        parts = [*built, part, *(one for one in left if not one.is_built)]
        self._manifest = msgspec.structs.replace(self._manifest, parts=tuple(one.name for one in parts))
        self._save()
        self.parts = parts
        return gone

    def supersede(self, made: Part) -> None:
        """Takes out of an older part, which is not here yet, what the parts here have newer."""
        for part in self.parts:
            for tenant in part.frequencies.tenants:
                for keys in part.pages(of_tenant(tenant, None), KEYS_A_RECORD):
                    made.drop(keys, note=True)

    def keys(self, tenant: str, where: Where | None) -> list[bytes]:
        """Returns keys of a tenant's points that a filter chooses, at most a page of them."""
        chosen = of_tenant(tenant, where)
        found: list[bytes] = []
        for part in self.parts:
            found += part.keys(chosen, KEYS_A_RECORD - len(found))
            if len(found) >= KEYS_A_RECORD:
                break
        return found

    def pages(self, tenant: str) -> Iterator[list[bytes]]:
        """Yields the keys of all of a tenant's points, by page."""
        chosen = of_tenant(tenant, None)
        for part in self.parts:
            yield from part.pages(chosen, KEYS_A_RECORD)

    def count(self, tenant: str, where: Where | None) -> int:
        """Counts a tenant's points that a filter chooses."""
        chosen = of_tenant(tenant, where)
        return sum(part.count(chosen) for part in self.parts)

    def close(self) -> None:
        """Lets go of files."""
        for part in self.parts:
            part.close()


def look(
    shelves: Sequence[Shelf], question: wire.Look, vector: list[float] | None
) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
    """Returns the nearest points by vector and by words over all parts of the shelves, best first."""
    parts = [part for shelf in shelves for part in shelf.parts]
    signals = Signals(
        chosen=of_tenant(question.tenant, question.where),
        limit=question.limit,
        vector=vector,
        words=_weighed(parts, question.tenant, question.words) if shelves[0].spec.has_words else None,
        with_vectors=question.with_vectors,
    )
    looked = [part.look(signals) for part in parts if question.tenant in part.frequencies.tenants]
    return (
        _best([hits for hits, _ in looked], question.limit),
        _best([hits for _, hits in looked], question.limit),
    )


def _weighed(parts: Sequence[Part], tenant: str, asked: Sparse | None) -> SparseVector | None:
    if asked is None or not asked.indices:
        return None
    rare = counting.rarities([part.frequencies for part in parts], tenant, asked.indices)
    weights = [weight * value for weight, value in zip(rare, asked.values, strict=True)]
    return SparseVector(asked.indices, weights)


def _best(lists: Sequence[Sequence[ScoredPoint]], limit: int) -> list[ScoredPoint]:
    if len(lists) == 1:
        return list(lists[0])
    return sorted((hit for hits in lists for hit in hits), key=lambda hit: -hit.score)[:limit]
