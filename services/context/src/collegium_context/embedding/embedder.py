"""What stands before an engine: vectors that are kept for a while, in memory and shared by all replicas.

Keys hold the tenant, so that nobody learns by time what another tenant has embedded; what is asked for without a scope
is neither kept nor found. Values are float16, and so is what is computed anew: the same text has the same vector,
whether it was found or not. One rule: a cache that fails is a cache without the vector.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np
from collegium_contracts.scope import Scope, one_tenant
from collegium_telemetry import names
from collegium_telemetry.metrics import DURATION_BUCKETS, Metrics

from collegium_context.embedding.interface import Counted, EmbedderUnavailableError, Engine, Vectors
from collegium_context.embedding.shelf import Kept, VectorShelf

# What a vector in memory costs beside its numbers.
_OVERHEAD_BYTES: Final = 250
# Sealing and keeping as many takes some milliseconds.
SLICE_TEXTS: Final = 512


class VectorMemory:
    """The vectors that were used last, within ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, bytes], Kept] = OrderedDict()
        self.size_bytes = 0

    def get(self, tenant: str, digest: bytes) -> Kept | None:
        """Returns a vector, or none."""
        kept = self._kept.get((tenant, digest))
        if kept is not None:
            self._kept.move_to_end((tenant, digest))
        return kept

    def put(self, tenant: str, digest: bytes, kept: Kept) -> None:
        """Keeps a vector, and lets go of those that were not used for longest."""
        standing = self._kept.pop((tenant, digest), None)
        if standing is not None:
            self.size_bytes -= len(standing.numbers) + _OVERHEAD_BYTES
        self._kept[tenant, digest] = kept
        self.size_bytes += len(kept.numbers) + _OVERHEAD_BYTES
        while self.size_bytes > self._max_bytes and self._kept:
            _, gone = self._kept.popitem(last=False)
            self.size_bytes -= len(gone.numbers) + _OVERHEAD_BYTES

    def forget(self, tenant: str) -> int:
        """Lets go of a tenant's vectors and returns how many there were."""
        gone = [key for key in self._kept if key[0] == tenant]
        for key in gone:
            self.size_bytes -= len(self._kept.pop(key).numbers) + _OVERHEAD_BYTES
        return len(gone)


class CachedEmbedder:
    """An engine with its caches; ``shelf`` is none where nothing is shared."""

    def __init__(
        self, engine: Engine, *, memory_bytes: int, shelf: VectorShelf | None = None, metrics: Metrics | None = None
    ) -> None:
        self._engine = engine
        self._memory = VectorMemory(memory_bytes)
        self._shelf = shelf
        metrics = metrics or Metrics("embedder")
        self._texts = metrics.counters(
            names.METRIC_EMBEDDED,
            "Texts by where their vector came from: memory, shared, computed, failed",
            ("result",),
        )
        self._tokens = metrics.counters(names.METRIC_EMBEDDED_TOKENS, "Tokens of computed vectors", ("model",))
        self._duration = metrics.histogram(names.METRIC_EMBEDDING_DURATION, "Computing vectors", DURATION_BUCKETS)
        metrics.watch_gauge(names.METRIC_EMBEDDING_WAITING, lambda: engine.waiting, "Texts that wait for their vector")
        metrics.watch_gauge(
            names.METRIC_EMBEDDING_MEMORY, lambda: self._memory.size_bytes, "Bytes of vectors kept in memory"
        )

    @property
    def model(self) -> str:
        """The name of the model, as it is kept beside its vectors."""
        return self._engine.model

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return self._engine.dimensions

    async def embed(self, texts: Sequence[str], *, scope: Scope | None = None) -> Vectors:
        """Returns one vector a text, in order; raises EmbedderUnavailableError."""
        return (await self.embed_counted(texts, scope=scope)).vectors

    async def embed_counted(self, texts: Sequence[str], *, scope: Scope | None = None) -> Counted:
        """Returns vectors and tokens, one a text, in order; raises EmbedderUnavailableError."""
        if len(texts) > SLICE_TEXTS:
            return await self._sliced(texts, scope)
        if scope is None:
            computed = await self._compute(texts)
            return Counted(_unit(_kept_numbers(computed.vectors)), computed.tokens)
        tenant = one_tenant(scope)
        digests = [self._digest(text) for text in texts]
        found = await self._find(tenant, digests)
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in found}
        if missing:
            computed = await self._compute(list(missing.values()))
            made = {
                digest: Kept(tokens, numbers.tobytes())
                for digest, tokens, numbers in zip(
                    missing, computed.tokens, _kept_numbers(computed.vectors), strict=True
                )
            }
            self._keep(tenant, made)
            found |= made
        if not texts:
            return await self._compute(texts)
        kept = [found[digest] for digest in digests]
        rows = np.frombuffer(b"".join(one.numbers for one in kept), dtype=np.float16).reshape(len(kept), -1)
        return Counted(_unit(rows), [one.tokens for one in kept])

    async def _sliced(self, texts: Sequence[str], scope: Scope | None) -> Counted:
        """Embeds many texts in slices, so that others get their turn between them."""
        slices = [texts[begin : begin + SLICE_TEXTS] for begin in range(0, len(texts), SLICE_TEXTS)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.embed_counted(one, scope=scope)) for one in slices]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        done = [task.result() for task in tasks]
        return Counted(np.concatenate([one.vectors for one in done]), [one for part in done for one in part.tokens])

    def forget(self, tenant: str) -> int:
        """Lets go of what is kept of a tenant in memory."""
        return self._memory.forget(tenant)

    async def close(self) -> None:
        """Lets go of the engine; who waits is refused."""
        await self._engine.close()

    def _digest(self, text: str) -> bytes:
        return sha256(f"{self._engine.model}\x00{text}".encode("utf-8", "surrogatepass")).digest()

    async def _find(self, tenant: str, digests: Sequence[bytes]) -> dict[bytes, Kept]:
        try:
            size = self._engine.dimensions * np.dtype(np.float16).itemsize
        except EmbedderUnavailableError:
            # Kept vectors may be of another length: the first texts tell.
            return {}
        found = {digest: kept for digest in digests if (kept := self._memory.get(tenant, digest)) is not None}
        self._texts["memory"].inc(sum(digest in found for digest in digests))
        if self._shelf is not None and (others := [one for one in dict.fromkeys(digests) if one not in found]):
            shared = {
                digest: kept
                for digest, kept in (await self._shelf.get(tenant, others)).items()
                if len(kept.numbers) == size
            }
            self._texts["shared"].inc(len(shared))
            for digest, kept in shared.items():
                self._memory.put(tenant, digest, kept)
            found |= shared
        return found

    def _keep(self, tenant: str, made: dict[bytes, Kept]) -> None:
        for digest, kept in made.items():
            self._memory.put(tenant, digest, kept)
        if self._shelf is not None:
            self._shelf.put(tenant, made)

    async def _compute(self, texts: Sequence[str]) -> Counted:
        began = time.perf_counter()
        try:
            counted = await self._engine.compute(texts)
        except Exception:
            self._texts["failed"].inc(len(texts))
            raise
        self._duration.observe(time.perf_counter() - began)
        self._texts["computed"].inc(len(texts))
        self._tokens[self._engine.model].inc(sum(counted.tokens))
        return counted


def _kept_numbers(vectors: Vectors) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    """Returns vectors of length one as they are kept."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, np.float32(1e-12))).astype(np.float16)


def _unit(kept: np.ndarray[tuple[int, int], np.dtype[np.float16]]) -> Vectors:
    """Returns kept vectors as they are given, of length one."""
    rows = kept.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
