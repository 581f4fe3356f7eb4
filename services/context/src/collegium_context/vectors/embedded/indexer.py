"""The process that builds: reads journals of closed parts, writes one journal of what is left, and a shard with graphs.

It reads only files that no longer change (the ``dead`` files up to a stated place) and writes into a folder of its own,
so it shares nothing with the process that answers questions; building holds this interpreter for minutes, and nobody
waits for it. One rule: the folder is complete and on disk before the exit code is 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from collegium_contracts.codec import encode
from collegium_servers.model_process import die_with_parent

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import journal as journals
from collegium_context.vectors.embedded import shards
from collegium_context.vectors.embedded.frequencies import Frequencies
from collegium_context.vectors.embedded.journal import Journal
from collegium_context.vectors.embedded.part import BUILT, DEAD, FLAT, JOURNAL, STEMS, dead_keys
from collegium_context.vectors.embedded.shards import Graphs
from collegium_context.vectors.embedded.shelf import Added, Dropped, record_codec
from collegium_context.vectors.interface import CollectionSpec

# Searching comes first on the cores that both share.
NICENESS = 10


class Input(msgspec.Struct, frozen=True):
    """A part to read: its folder, and how much of its ``dead`` file counts."""

    folder: str
    dead_bytes: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to build, and where; ``only`` one tenant's points, or all but those of ``without``.

    No ``graphs``: only the journal is written anew, for a snapshot.
    """

    parent: int
    inputs: tuple[Input, ...]
    output: str
    spec: CollectionSpec
    only: str | None = None
    without: tuple[str, ...] = ()
    graphs: Graphs | None = "by_tenant"


def living(source: Input) -> dict[bytes, int]:
    """Returns the keys that are left of a part, with the number of the row that has them."""
    folder = Path(source.folder)
    last: dict[bytes, int] = {}
    number = 0
    for body, _ in journals.records(folder / JOURNAL):
        record = record_codec.decode(body)
        if isinstance(record, Dropped):
            for key in record.keys:
                last.pop(key, None)
            continue
        for rows in record.rows:
            for key in shards.keys_of(record.tenant, rows):
                last[key] = number
                number += 1
    if source.dead_bytes:
        for keys, _ in dead_keys(folder / DEAD, limit=source.dead_bytes):
            for key in keys:
                last.pop(key, None)
    return last


def left_of(job: Job, source: Input) -> Iterator[tuple[str, wire.Rows]]:
    """Yields what is left of a part, by batch."""
    last = living(source)
    number = 0
    for body, _ in journals.records(Path(source.folder) / JOURNAL):
        record = record_codec.decode(body)
        if isinstance(record, Dropped):
            continue
        wanted = record.tenant == job.only if job.only is not None else record.tenant not in job.without
        for rows in record.rows:
            keys = shards.keys_of(record.tenant, rows)
            chosen = [row for row, key in enumerate(keys) if last.get(key) == number + row] if wanted else []
            number += len(keys)
            if chosen:
                yield record.tenant, wire.take(rows, chosen)


def build(job: Job) -> None:
    """Builds a part into the job's folder."""
    folder = Path(job.output)
    folder.mkdir(parents=True)
    journal = Journal(folder / JOURNAL)
    frequencies = Frequencies()
    shard = shards.create(folder / BUILT, job.spec, indexed=True, graphs=job.graphs) if job.graphs else None
    for source in job.inputs:
        for tenant, rows in left_of(job, source):
            journal.append(encode(Added(tenant=tenant, rows=[rows])))
            frequencies.add(tenant, len(rows), len(rows.word_rows), shards.indices_of(rows))
            if shard is not None:
                for step in shards.prepared(tenant, rows).steps:
                    shard.update(step)
    os.fsync(os.open(folder / JOURNAL, os.O_RDONLY))
    journal.close()
    if shard is not None:
        frequencies.save(folder / STEMS)
        if job.graphs == "none":
            (folder / FLAT).touch()
        shard.optimize()
        shard.flush()
        shard.close()


def main() -> int:
    """Builds what standard input asks for; returns the exit code."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    die_with_parent(job.parent)
    os.nice(NICENESS)
    build(job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
