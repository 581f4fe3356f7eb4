"""A shelf: the points of one collection generation in parts, as one.

New points go to the last part, the open one, whose journal is written first; the parts before it only lose points. A
point stands in one part: what is added is removed from the older ones in the same turn of the loop, so that no question
sees it twice or not at all, and opening the shelf does the same again from the journals. One rule: a record in the open
journal is the moment at which a change happened; everything else can be made again from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from collegium_contracts.base import Message
from collegium_contracts.codec import Codec, encode
from qdrant_edge import ScoredPoint, SparseVector

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import frequencies as counting
from collegium_context.vectors.embedded import journal as journals
from collegium_context.vectors.embedded import part as parts
from collegium_context.vectors.embedded.filters import of_tenant
from collegium_context.vectors.embedded.frequencies import Frequencies
from collegium_context.vectors.embedded.journal import Journal
from collegium_context.vectors.embedded.part import Part, Signals
from collegium_context.vectors.interface import CollectionSpec, Where
from collegium_context.vectors.words import Sparse

JOURNAL = "journal"
LIVE = "live"
# Keys of one record, and of one page of a deletion by filter.
KEYS_A_RECORD = 1_000


class Added(Message, frozen=True, kw_only=True):
    """A batch of points, kept whole."""

    tenant: str
    rows: list[wire.Rows]


class Dropped(Message, frozen=True, kw_only=True):
    """Points that were removed, by key."""

    keys: list[bytes]


Record = Added | Dropped
record_codec: Codec[Record] = Codec(Record)


class Shelf:
    """The parts of one collection generation, or of one tenant's share of it."""

    def __init__(self, folder: Path, spec: CollectionSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.parts: list[Part] = []
        self.journal = self._open()

    def _open(self) -> Journal:
        name = "00000001"
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / LIVE, ignore_errors=True)
        journal = Journal(folder / JOURNAL)
        self.parts.append(Part(name, parts.create(folder / LIVE, self.spec), Frequencies()))
        end = 0
        for body, end in journals.records(journal.path):  # noqa: B007 - the last end is where whole records stop
            self._apply(record_codec.decode(body))
        journal.cut(end)
        return journal

    def _apply(self, record: Record) -> None:
        open_part = self.parts[-1]
        if isinstance(record, Dropped):
            for part in self.parts:
                part.drop(record.keys)
            return
        for rows in record.rows:
            open_part.put(record.tenant, rows)
            for part in self.parts[:-1]:
                part.drop(parts.keys_of(record.tenant, rows))

    def add(self, tenant: str, rows: Sequence[wire.Rows]) -> None:
        """Adds or replaces a batch of points, whole."""
        self._commit(Added(tenant=tenant, rows=list(rows)))

    def drop(self, keys: Sequence[bytes]) -> None:
        """Removes points by key."""
        for start in range(0, len(keys), KEYS_A_RECORD):
            self._commit(Dropped(keys=list(keys[start : start + KEYS_A_RECORD])))

    def _commit(self, record: Record) -> None:
        self.journal.append(encode(record))
        self._apply(record)

    def keys(self, tenant: str, where: Where | None) -> list[bytes]:
        """Returns keys of a tenant's points that a filter chooses, at most a page of them."""
        chosen = of_tenant(tenant, where)
        found: list[bytes] = []
        for part in self.parts:
            found += part.keys(chosen, KEYS_A_RECORD - len(found))
            if len(found) >= KEYS_A_RECORD:
                break
        return found

    def count(self, tenant: str, where: Where | None) -> int:
        """Counts a tenant's points that a filter chooses."""
        chosen = of_tenant(tenant, where)
        return sum(part.count(chosen) for part in self.parts)

    def look(self, question: wire.Look, vector: list[float] | None) -> tuple[list[ScoredPoint], list[ScoredPoint]]:
        """Returns the nearest points by vector and by words over all parts, best first."""
        signals = Signals(
            chosen=of_tenant(question.tenant, question.where),
            limit=question.limit,
            vector=vector,
            words=self._weighed(question.tenant, question.words),
            with_vectors=question.with_vectors,
        )
        looked = [part.look(signals) for part in self.parts]
        return (
            _best([hits for hits, _ in looked], question.limit),
            _best([hits for _, hits in looked], question.limit),
        )

    def _weighed(self, tenant: str, asked: Sparse | None) -> SparseVector | None:
        if asked is None or not asked.indices or not self.spec.has_words:
            return None
        rare = counting.rarities([part.frequencies for part in self.parts], tenant, asked.indices)
        weights = [weight * value for weight, value in zip(rare, asked.values, strict=True)]
        return SparseVector(asked.indices, weights)

    def close(self) -> None:
        """Lets go of files."""
        self.journal.close()
        for part in self.parts:
            part.shard.close()


def _best(lists: Sequence[Sequence[ScoredPoint]], limit: int) -> list[ScoredPoint]:
    if len(lists) == 1:
        return list(lists[0])
    return sorted((hit for hits in lists for hit in hits), key=lambda hit: -hit.score)[:limit]
