"""The semantic cache as a part of context: its handlers, its sweep, its figures, its erasure.

One rule: it starts without its parts where it must (no embedder, no vector store): then every look is refused, and
everybody asks a model.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import asyncpg
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_bus.shell import Handler
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import UnknownKeyError
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import PROJECT_ID, TENANT_ID
from collegium_contracts.likeness import (
    LikenessForget,
    LikenessForgotten,
    LikenessKeep,
    LikenessKept,
    LikenessLook,
    LikenessLooked,
    LikenessStats,
    LikenessStatsReply,
)
from collegium_contracts.messages import Message
from collegium_contracts.scope import AllTenants, Scope
from collegium_contracts.state import CachedAnswer
from collegium_runtime.platform import Platform
from collegium_runtime.spans import received
from collegium_settings import Settings
from collegium_store import is_transient
from collegium_telemetry import names

from collegium_context.embedding.bounded import Bounded
from collegium_context.embedding.interface import Embedder, EmbedderUnavailableError
from collegium_context.semantic.looking import COLLECTIONS, Likeness, Version
from collegium_context.semantic.policy import Limits
from collegium_context.semantic.risk import interval
from collegium_context.semantic.shipped import shipped
from collegium_context.semantic.store import LikenessStore
from collegium_context.vectors.interface import UnknownCollectionError, VectorStore, VectorStoreError

log = structlog.get_logger(__name__)

_LOOK = received(s.SVC_LIKENESS_LOOK)
_KEEP = received(s.SVC_LIKENESS_KEEP)
SWEEP_SECONDS = 30.0
LOOK_BUCKETS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.06, 0.12, 0.5)
M = TypeVar("M", bound=Message)
A = TypeVar("A")


class SemanticCache:
    """Looks, keeps, forgets and counts for the other services."""

    def __init__(
        self, platform: Platform, pool: asyncpg.Pool, vectors: VectorStore, embedder: Embedder, version: Version
    ) -> None:
        self._platform = platform
        self._store = LikenessStore(pool)
        self._vectors = vectors
        self.likeness = Likeness(
            self._store,
            vectors,
            Bounded(embedder),
            platform.keyring,
            version,
            shipped(),
            Limits(0.0, 0.0),
            platform.now_ms,
        )
        self._is_measured = embedder.model == shipped().embedder
        self._sweeping: asyncio.Task[None] | None = None
        self._estimate = (0.0, 0.0, 1.0)
        metrics = platform.metrics
        self._looks = metrics.histogram(
            names.METRIC_CACHE_LOOK, "A look for an answer to a question alike", LOOK_BUCKETS
        )
        for place, bound in enumerate(("estimate", "low", "high")):
            metrics.watch_gauge(
                f"{names.METRIC_CACHE_WRONG}_{bound}",
                lambda place=place: self._estimate[place],
                "Share of wrong answers among semantic hits, by those that were explored",
            )
        self.handlers: dict[str, Handler] = {
            s.SVC_LIKENESS_LOOK: self._look,
            s.SVC_LIKENESS_KEEP: self._keep,
            s.SVC_LIKENESS_FORGET: self._forget,
            s.SVC_LIKENESS_STATS: self._stats,
        }

    async def start(self) -> None:
        """Makes its collection and computes its limits; sweeps from now on."""
        await self._use(self._platform.settings)
        self._platform.on_settings.append(self._use)
        try:
            await self._make()
        except (VectorStoreError, EmbedderUnavailableError) as error:
            log.warning("questions alike are asked for now", code=error.code)
        self._sweeping = asyncio.create_task(self._keep_sweeping(), name="kept-answers")

    async def stop(self) -> None:
        """Stops sweeping; what was served is counted first."""
        await self.likeness.settle()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def forget(self, tenant: str) -> int:
        """Removes a tenant's entries and their points, rows first, so that nothing is served meanwhile."""
        await self._store.clear(Scope(tenant), self._platform.now_ms())
        total = 0
        while ids := await self._store.forget(Scope(tenant)):
            total += len(ids)
            await self._take_out(tenant, ids)
        await self._store.forget_scopes(Scope(tenant))
        return total

    async def _use(self, settings: Settings) -> None:
        wrong_max = settings.cache.wrong_max
        # A calibration says nothing about another embedder's vectors.
        self.likeness.limits = (
            await asyncio.to_thread(Limits.of, shipped(), wrong_max) if self._is_measured else Limits(0.0, 0.0)
        )

    async def _look(self, question: Message, traceparent: str) -> Message:
        asked = _expected(question, LikenessLook)
        with self._platform.tracing.hop("context cache look", "server", traceparent, _LOOK) as hop, self._looks.time():
            hop.set(names.TENANT, asked.tenant)
            looked = await _or_refused(self.likeness.look(asked.tenant, asked.project, asked.setting, asked.prompt))
        risk = looked.candidate.adjusted if looked.candidate is not None else 1.0
        if looked.decision != "serve" or looked.entry is None:
            return LikenessLooked(decision=looked.decision, risk=risk)
        answer = codec.state.decode(looked.entry.answer)
        if not isinstance(answer, CachedAnswer) or answer.tenant != asked.tenant:
            return LikenessLooked(decision="call")
        return LikenessLooked(decision="serve", answer=answer, risk=risk)

    async def _keep(self, question: Message, traceparent: str) -> Message:
        asked = _expected(question, LikenessKeep)
        if asked.answer.tenant != asked.tenant:
            raise RequestRefusedError("invalid_value", "an answer of another tenant", "answer")
        with self._platform.tracing.hop("context cache keep", "server", traceparent, _KEEP) as hop:
            hop.set(names.TENANT, asked.tenant)
            kept, same = await _or_refused(
                self.likeness.keep(
                    asked.tenant,
                    asked.project,
                    asked.setting,
                    asked.prompt,
                    asked.answer,
                    asked.expires_at_ms,
                    explored=asked.explored,
                )
            )
        return LikenessKept(kept=kept, compared=same is not None, same=bool(same))

    async def _forget(self, question: Message, _traceparent: str) -> Message:
        return LikenessForgotten(entries=await _or_refused(self.forget(_expected(question, LikenessForget).tenant)))

    async def _stats(self, question: Message, _traceparent: str) -> Message:
        tenant = _expected(question, LikenessStats).tenant
        stats = await _or_refused(self._store.stats(Scope(tenant)))
        low, high = interval(stats["explored_wrong"], stats["explored"])
        return LikenessStatsReply(**stats, wrong_low=round(low, 6), wrong_high=round(high, 6))

    async def _keep_sweeping(self) -> None:
        while True:
            try:
                await self._make()
                await self.sweep()
            except Exception as error:
                log.warning("expired answers not swept", error=type(error).__name__)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Removes what has expired and counts what was explored; returns how many entries went."""
        everybody = AllTenants("expired answers, and the wrong-hit estimate of the whole platform")
        explored, wrong = await self._store.totals(everybody)
        self._estimate = (wrong / explored if explored else 0.0, *interval(wrong, explored))
        total = 0
        while gone := await self._store.expired(everybody, self._platform.now_ms()):
            total += len(gone)
            for tenant in {tenant for tenant, _ in gone}:
                ids = [entry for owner, entry in gone if owner == tenant]
                await self._take_out(tenant, ids)
        return total

    async def _make(self) -> None:
        """Makes the collection of this embedder; those of others go, as their answers are found no more."""
        await self.likeness.make()
        spec = self.likeness.spec
        for name in await self._vectors.names():
            if name.startswith(COLLECTIONS) and name != spec.name:
                log.info("kept answers of another embedder are dropped", collection=name)
                await self._vectors.drop(name)

    async def _take_out(self, tenant: str, ids: Sequence[str]) -> None:
        with contextlib.suppress(UnknownCollectionError, EmbedderUnavailableError):
            await self._vectors.delete(Scope(tenant), self.likeness.spec.name, ids=ids)


def _expected(question: Message, kind: type[M]) -> M:
    if not isinstance(question, kind):
        raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
    if not TENANT_ID.match(getattr(question, "tenant", "")):
        raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
    if not PROJECT_ID.match(getattr(question, "project", "default")):
        raise RequestRefusedError("invalid_value", "not the id of a project", "project")
    return question


async def _or_refused(doing: Awaitable[A]) -> A:
    try:
        return await doing
    except RequestRefusedError:
        raise
    except UnknownKeyError as error:
        raise RequestRefusedError(error.code, str(error)) from error
    except EmbedderUnavailableError as error:
        raise RequestRefusedError(error.code, "questions cannot be embedded now, so none is found alike") from error
    except VectorStoreError as error:
        text = f"the vector store cannot tell what is alike now: {error.code}"
        raise RequestRefusedError("vector_store_unavailable", text) from error
    except ContractError as error:
        raise RequestRefusedError("context_unavailable", f"the semantic cache cannot tell now: {error.code}") from error
    except Exception as error:
        if not is_transient(error):
            raise
        raise RequestRefusedError("context_unavailable", "the semantic cache's database is away") from error
