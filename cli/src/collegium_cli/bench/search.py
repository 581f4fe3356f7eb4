"""``collegium bench search``: hybrid questions with a tenant's filter on the embedded store, idle and while it indexes.

Vectors are made around random centres and texts of words as rare as words are, by a seed; each chunk has a text of its
own. Questions are asked one after another, over the broker, as context asks them: first while the indexer builds, then
when it is done. How many of the nearest points the graphs find is counted on some questions, beside a scan. One rule:
what is measured includes everything a caller waits for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from collegium_cli.bench import figures

if TYPE_CHECKING:
    from collegium_context.vectors.embedded.client import EmbeddedStore
    from collegium_context.vectors.interface import Point

DIMENSIONS = 384
CENTRES = 256
VOCABULARY = 30_000
WORDS_A_CHUNK = 60
WORDS_A_QUESTION = 6
LIMIT = 10
FILLED_AT_ONCE = 2_000
CHECKED_QUESTIONS = 100
COLLECTION = "bench"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    chunks: int = 50_000
    tenants: int = 10
    questions: int = 1_000
    is_quantized: bool = False
    keep: Path | None = None
    seed: int = 7


class Made:
    """Chunks and questions, by a seed."""

    def __init__(self, options: Options) -> None:
        import numpy as np

        self._options = options
        self._np = np
        self._random = np.random.default_rng(options.seed)
        self._asked = np.random.default_rng(options.seed + 1)
        self._centres = self._random.normal(size=(CENTRES, DIMENSIONS)).astype(np.float32)
        ranks = np.arange(1, VOCABULARY + 1)
        self._shares = np.cumsum(1 / ranks) / np.sum(1 / ranks)

    def _vectors(self, count: int) -> Any:
        np = self._np
        centres = self._centres[self._random.integers(0, CENTRES, count)]
        made = centres + 0.8 * self._random.normal(size=(count, DIMENSIONS)).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    def _texts(self, count: int, words: int) -> list[str]:
        chosen = self._np.searchsorted(self._shares, self._random.random((count, words)))
        return [" ".join(f"w{word}" for word in row) for row in chosen]

    def tenant(self, number: int) -> str:
        """Returns whose chunk a number is."""
        return f"tenant-{number % self._options.tenants}"

    def batches(self) -> Iterator[tuple[str, list[Point]]]:
        """Yields all chunks, by tenant."""
        from collegium_context.vectors.interface import Point

        for number, start in enumerate(range(0, self._options.chunks, FILLED_AT_ONCE)):
            count = min(FILLED_AT_ONCE, self._options.chunks - start)
            vectors, texts = self._vectors(count), self._texts(count, WORDS_A_CHUNK)
            yield (
                self.tenant(number),
                [
                    Point(str(uuid.UUID(int=start + row + 1)), vectors[row], texts[row], {"kind": f"k{row % 5}"})
                    for row in range(count)
                ],
            )

    def questions(self, count: int) -> Iterator[tuple[str, Any, str]]:
        """Yields questions: whose, a vector, and words."""
        vectors, texts = self._vectors(count), self._texts(count, WORDS_A_QUESTION)
        for row in range(count):
            yield self.tenant(row), vectors[row], texts[row]


def main(options: argparse.Namespace) -> int:
    """Measures, prints the report, and returns the exit code."""
    measured = asyncio.run(
        run(
            Options(
                chunks=options.chunks,
                tenants=options.tenants,
                questions=options.questions,
                is_quantized=options.quantized,
            )
        )
    )
    print(json.dumps(measured) if options.json else table(measured))
    return 0


def table(report: dict[str, Any]) -> str:
    """Returns the figures as a table for people."""
    lines = [
        f"{report['chunks']} chunks of {report['tenants']} tenants, filled with {report['filled_per_second']} a second,"
        f" indexed after {report['indexed_after_seconds']} s (load average {report['load_average']})",
        "",
        "                    asked    p50 ms    p90 ms    p99 ms    max ms",
    ]
    for name in ("while_filling", "while_indexing", "idle"):
        one = report[name]
        figures_of = "".join(f"{one[key] or 0:>10}" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
        lines.append(f"{name:<17}{one['count']:>8}{figures_of}")
    lines.append(f"of the {LIMIT} nearest, found: {report['recall']}")
    return "\n".join(lines)


async def run(options: Options) -> dict[str, Any]:
    """Starts a broker and a store in a temporary folder, measures, and returns the figures."""
    from collegium_bus.connection import connect
    from collegium_context.vectors.embedded.child import Child
    from collegium_context.vectors.embedded.client import EmbeddedStore
    from collegium_context.vectors.embedded.owner import Orders
    from collegium_servers import nats
    from collegium_settings.settings import NatsSettings

    with tempfile.TemporaryDirectory(prefix="collegium-bench-") as folder:
        server = await nats.start(Path(folder))
        connection = await connect(server.url, "context")
        child = Child(
            Orders(
                folder=f"{folder}/vectors",
                parent=os.getpid(),
                nats=NatsSettings(url=server.url),
                seed_file=None,
                durability="process",
            )
        )
        try:
            await child.start()
            return await _measure(EmbeddedStore(connection), options)
        finally:
            await child.stop()
            await connection.close()
            await server.stop()


async def _measure(store: EmbeddedStore, options: Options) -> dict[str, Any]:
    from collegium_context.vectors.interface import CollectionSpec

    await store.ensure(CollectionSpec(COLLECTION, DIMENSIONS, keyword_fields=("kind",), quantized=options.is_quantized))
    made = Made(options)
    began = time.perf_counter()
    filling: list[float] = []
    asking = asyncio.create_task(_while_filling(store, made, filling))
    scopes, sample = await _fill(store, made)
    asking.cancel()
    filled = time.perf_counter() - began
    indexing: list[float] = []
    while (await _waiting(store)) > 0:
        indexing += await _ask(store, made, 50, pause_seconds=0.02)
    indexed = time.perf_counter() - began
    await _ask(store, made, 200)
    idle = await _ask(store, made, options.questions)
    return {
        "chunks": options.chunks,
        "tenants": options.tenants,
        "quantized": options.is_quantized,
        "filled_per_second": round(options.chunks / filled, 1),
        "indexed_after_seconds": round(indexed, 1),
        "while_filling": figures.spread(filling),
        "while_indexing": figures.spread(indexing),
        "idle": figures.spread(idle),
        "recall": await _recall(store, sample),
        "counted": sum([await store.count(scope, COLLECTION) for scope in scopes]),
        "load_average": round(os.getloadavg()[0], 2),
    }


async def _fill(store: EmbeddedStore, made: Made) -> tuple[list[Any], tuple[Any, Any]]:
    """Writes all chunks; returns the scopes, and one tenant's vectors with its scope."""
    import numpy as np
    from collegium_contracts.scope import Scope

    scopes: dict[str, Scope] = {}
    kept: list[Any] = []
    first = made.tenant(0)
    for tenant, points in made.batches():
        scopes[tenant] = Scope(tenant)
        if tenant == first:
            kept += [point.vector for point in points]
        await store.upsert(scopes[tenant], COLLECTION, points)
    return list(scopes.values()), (scopes[first], np.array(kept))


async def _while_filling(store: EmbeddedStore, made: Made, took_ms: list[float]) -> None:
    from collegium_contracts.scope import Scope

    for _, vector, words in made.questions(10_000):
        began = time.perf_counter()
        await store.look(Scope(made.tenant(0)), COLLECTION, vector=vector, words=words, limit=LIMIT)
        took_ms.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(0.1)


async def _recall(store: EmbeddedStore, sample: tuple[Any, Any]) -> float:
    """Returns the share of the nearest vectors of a tenant, as a scan has them, that questions found."""
    import numpy as np

    scope, vectors = sample
    found = 0
    asked = vectors[:: max(1, len(vectors) // CHECKED_QUESTIONS)][:CHECKED_QUESTIONS]
    noise = np.random.default_rng(1).normal(size=asked.shape).astype(np.float32) * 0.02
    for vector in asked + noise:
        looked = await store.look(scope, COLLECTION, vector=vector, limit=LIMIT)
        scores = vectors @ (vector / np.linalg.norm(vector))
        bar = np.partition(scores, -LIMIT)[-LIMIT] - 1e-5
        found += sum(hit.score >= bar for hit in looked.dense)
    return round(found / (LIMIT * len(asked)), 4)


async def _waiting(store: EmbeddedStore) -> int:
    status = await store.status()
    indexing = status["indexing"]
    return indexing["waiting_points"] + bool(indexing["running"]) + bool(indexing["is_due"])


async def _ask(store: EmbeddedStore, made: Made, count: int, *, pause_seconds: float = 0.0) -> list[float]:
    from collegium_contracts.scope import Scope

    took_ms: list[float] = []
    for tenant, vector, words in made.questions(count):
        began = time.perf_counter()
        looked = await store.look(Scope(tenant), COLLECTION, vector=vector, words=words, limit=LIMIT)
        took_ms.append(1000 * (time.perf_counter() - began))
        if len(looked.dense) != LIMIT:
            raise RuntimeError(f"{len(looked.dense)} points were found, not {LIMIT}")
        if pause_seconds:
            await asyncio.sleep(pause_seconds)
    return took_ms
