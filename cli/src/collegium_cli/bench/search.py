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
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from collegium_cli.bench import figures
from collegium_cli.bench.stage import StageError

if TYPE_CHECKING:
    from collegium_context.vectors.embedded.client import EmbeddedStore
    from collegium_context.vectors.interface import Point
    from collegium_contracts.scope import Scope

DIMENSIONS = 384
CENTRES = 256
VOCABULARY = 30_000
WORDS_A_CHUNK = 60
WORDS_A_QUESTION = 6
LIMIT = 10
FILLED_AT_ONCE = 2_000
CHECKED_QUESTIONS = 100
COLLECTION = "bench"
SAMPLE = "sample.npy"


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

    def scopes(self) -> list[Scope]:
        """Returns all scopes."""
        from collegium_contracts.scope import Scope

        return [Scope(self.tenant(number)) for number in range(self._options.tenants)]

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
            ),
            _nobody_else,
        )
        try:
            await child.start()
            return await _measure(EmbeddedStore(connection), options, server.url, Path(folder))
        finally:
            await child.stop()
            await connection.close()
            await server.stop()


async def _nobody_else() -> bool:
    return False


async def _measure(store: EmbeddedStore, options: Options, url: str, folder: Path) -> dict[str, Any]:
    from collegium_context.vectors.interface import CollectionSpec

    await store.ensure(CollectionSpec(COLLECTION, DIMENSIONS, keyword_fields=("kind",), quantized=options.is_quantized))
    made = Made(options)
    began = time.perf_counter()
    filling = await _while_filling(store, made, url, options, folder)
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
        "recall": await _recall(store, made.tenant(0), folder / SAMPLE),
        "counted": sum([await store.count(scope, COLLECTION) for scope in made.scopes()]),
        "load_average": round(os.getloadavg()[0], 2),
    }


def fill(url: str, options: Options, sample: Path) -> None:
    """Writes all chunks, and one tenant's vectors to a file; in a process of its own."""
    asyncio.run(_fill(url, options, sample))


async def _fill(url: str, options: Options, sample: Path) -> None:
    import numpy as np
    from collegium_bus.connection import connect
    from collegium_context.vectors.embedded.client import EmbeddedStore
    from collegium_contracts.scope import Scope

    made = Made(options)
    connection = await connect(url, "context")
    store = EmbeddedStore(connection)
    kept: list[Any] = []
    for tenant, points in made.batches():
        if tenant == made.tenant(0):
            kept += [point.vector for point in points]
        await store.upsert(Scope(tenant), COLLECTION, points)
    await connection.close()
    np.save(sample, np.array(kept))


async def _while_filling(store: EmbeddedStore, made: Made, url: str, options: Options, folder: Path) -> list[float]:
    filler = get_context("spawn").Process(target=fill, args=(url, options, folder / SAMPLE))
    filler.start()
    took_ms: list[float] = []
    while filler.is_alive():
        took_ms += await _ask(store, made, 10, pause_seconds=0.05, is_whole=False)
    if filler.exitcode:
        raise StageError(f"filling ended with {filler.exitcode}")
    return took_ms


async def _recall(store: EmbeddedStore, tenant: str, sample: Path) -> float:
    """Returns the share of the nearest vectors of a tenant, as a scan has them, that questions found."""
    import numpy as np
    from collegium_contracts.scope import Scope

    vectors = np.load(sample)
    found = 0
    asked = vectors[:: max(1, len(vectors) // CHECKED_QUESTIONS)][:CHECKED_QUESTIONS]
    noise = np.random.default_rng(1).normal(size=asked.shape).astype(np.float32) * 0.02
    for vector in asked + noise:
        looked = await store.look(Scope(tenant), COLLECTION, vector=vector, limit=LIMIT)
        scores = vectors @ (vector / np.linalg.norm(vector))
        bar = np.partition(scores, -LIMIT)[-LIMIT] - 1e-5
        found += sum(hit.score >= bar for hit in looked.dense)
    return round(found / (LIMIT * len(asked)), 4)


async def _waiting(store: EmbeddedStore) -> int:
    from collegium_context.vectors.interface import StoreUnavailableError

    try:
        status = await store.status()
    except StoreUnavailableError:
        return 1
    indexing = status["indexing"]
    return indexing["waiting_points"] + bool(indexing["running"]) + bool(indexing["is_due"])


async def _ask(
    store: EmbeddedStore, made: Made, count: int, *, pause_seconds: float = 0.0, is_whole: bool = True
) -> list[float]:
    from collegium_context.vectors.interface import StoreUnavailableError
    from collegium_contracts.scope import Scope

    took_ms: list[float] = []
    for tenant, vector, words in made.questions(count):
        began = time.perf_counter()
        try:
            looked = await store.look(Scope(tenant), COLLECTION, vector=vector, words=words, limit=LIMIT)
        except StoreUnavailableError:
            looked = None  # counted with the time that it took to be told
        took_ms.append(1000 * (time.perf_counter() - began))
        if is_whole and looked is not None and len(looked.dense) != LIMIT:
            raise StageError(f"{len(looked.dense)} points were found, not {LIMIT}")
        if pause_seconds:
            await asyncio.sleep(pause_seconds)
    return took_ms
