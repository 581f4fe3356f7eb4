"""Summaries of what does not fit: gists made of each turn after the fact, put together when a window is short.

A loop reduces new turns to gists, with nobody waiting for it and no model asked; reading puts together those of turns
that were left out, which takes a moment. A turn that is forgotten takes its gist with it, so no summary outlives what
it was made of. The same loop lets go of turns that are older than they may be. One rule: without a gist a turn is left
out, never waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.content import decode_messages
from collegium_contracts.memory_requests import NOTE_BYTES_MAX
from collegium_contracts.scope import Scope, one_tenant

from collegium_context.memory.conversation_store import ConversationStore
from collegium_context.memory.gist import decode_gist, encode_gist, gist_of, summary_of
from collegium_context.memory.sealing import Sealing
from collegium_context.memory.view_store import ViewStore

log = structlog.get_logger(__name__)

PURPOSE = "gist"
# Half of what a prompt may be added to; the other half is for memories.
SUMMARY_BYTES_MAX = NOTE_BYTES_MAX // 2
# The share of a short window that a summary may take from newer turns.
WINDOW_SHARE = 4
AT_ONCE = 100
EVERY_SECONDS = 2.0
SWEEP_EVERY_SECONDS = 600.0
SWEEP_AT_ONCE = 5_000
DAY_MS = 86_400_000
# EVENTS forgets after three days what could bring a turn back.
MARKS_DAYS = 7
RECALLS_DAYS = 30


class Summaries:
    """Makes gists, and summaries of them."""

    def __init__(self, store: ConversationStore, sealing: Sealing) -> None:
        self._store = store
        self._sealing = sealing

    async def of(self, scope: Scope, first_sequence: int, *, window_bytes: int) -> str:
        """Returns what is kept in mind of the turns before a sequence (0: of all) of the scope's conversation."""
        sealed = await self._store.gists(scope, first_sequence)
        opened = [await self._sealing.open(one_tenant(scope), one, PURPOSE) for one in sealed]
        gists = [decode_gist(one) for one in opened]
        return summary_of(gists, max_bytes=min(SUMMARY_BYTES_MAX, window_bytes // WINDOW_SHARE))

    async def make_some(self) -> int:
        """Makes gists of turns that have none; returns how many."""
        made = 0
        for scope, task, body in await self._store.without_gist(AT_ONCE):
            tenant = one_tenant(scope)
            try:
                messages = decode_messages(await self._sealing.open(tenant, body))
                gist = await asyncio.to_thread(gist_of, messages)
            except (RequestRefusedError, msgspec.DecodeError):
                # It can be shown to nobody either.
                gist = []
            try:
                await self._store.keep_gist(scope, task, self._sealing.seal(tenant, encode_gist(gist), PURPOSE))
            except RequestRefusedError:
                continue
            made += 1
        return made


class Upkeep:
    """The loop that makes gists and lets go of what is too old."""

    def __init__(
        self,
        summaries: Summaries,
        store: ConversationStore,
        views: ViewStore,
        now_ms: Callable[[], int],
        retention_days: Callable[[], int],
    ) -> None:
        self._summaries = summaries
        self._store = store
        self._views = views
        self._now_ms = now_ms
        self._retention_days = retention_days
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run(), name="memory-upkeep")

    async def stop(self) -> None:
        """Stops; what is left is done after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        swept = -SWEEP_EVERY_SECONDS
        while True:
            try:
                while await self._summaries.make_some() == AT_ONCE:
                    pass
                if loop.time() - swept >= SWEEP_EVERY_SECONDS:
                    await self.sweep()
                    swept = loop.time()
            except Exception as error:  # whatever failed, it is tried again
                log.warning("conversations are not kept up", error=type(error).__name__, detail=str(error)[:200])
            await asyncio.sleep(EVERY_SECONDS)

    async def sweep(self) -> int:
        """Deletes what is older than it may be; returns how many turns."""
        now, gone = self._now_ms(), 0
        if days := self._retention_days():
            while removed := await self._store.forget_before(now - days * DAY_MS, SWEEP_AT_ONCE):
                gone += removed
        await self._store.forget_marks(now - MARKS_DAYS * DAY_MS)
        await self._views.forget_told(now - RECALLS_DAYS * DAY_MS)
        return gone
