"""Keeping the windows of limited models: rebuilt from EVENTS at start, then kept in the bucket ``quotas``.

A router that starts goes on from the newest kept windows and reads only the events after them; without any it reads
back as far as the longest window, and as EVENTS keeps (three days). Until then limited models are not asked. A changed
limit is rebuilt beside what stands. One rule: an event is counted once, whoever reads it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.callnote import read_note
from collegium_contracts.errors import ContractError
from collegium_contracts.windows import QuotaWindows
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_router.limits.quota import MINUTE_MS, Book, Quotas

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 1.0
# What stands is at most so old, and what is shown with it.
KEEP_MS: Final = 5_000


class QuotaKeeper:
    """Rebuilds, keeps and shows the windows; ``filters`` are the events that end calls, ``changed`` hears of a book."""

    def __init__(
        self, platform: Platform, quotas: Quotas, filters: Sequence[str], *, changed: Callable[[], None]
    ) -> None:
        self._platform = platform
        self._quotas = quotas
        self._filters = filters
        self._changed = changed
        self._bucket = Bucket(platform.connection, s.KV_QUOTAS)
        self._used = platform.metrics.gauges(
            names.METRIC_QUOTA_USED, "Share of a model's upstream quota that is used, its tightest window's", ("model",)
        )
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; events that end calls must be handed to :meth:`hear` from before on."""
        self._task = asyncio.create_task(self._run(), name="quotas")

    async def stop(self) -> None:
        """Stops; the others keep the windows."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look_soon(self) -> None:
        """Asks for a look before its time: the roster has changed."""
        self._soon.set()

    def hear(self, delivery: Delivery) -> None:
        """Counts the call that an event ended, where a model is limited."""
        note = read_note(delivery.header(s.H_CALL)) if self._quotas.limited else None
        if note is not None:
            self._quotas.hear(delivery.sequence, delivery.timestamp_ns // 1_000_000, note)

    async def _run(self) -> None:
        while True:
            try:
                if self._quotas.is_behind:
                    await self._rebuild()
                if self._quotas.limited:
                    self._show()
                    await self._keep()
            except (BusError, ContractError) as error:
                log.warning("quotas not kept, trying again", error=str(error))
            try:
                async with asyncio.timeout(ROUND_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()

    async def _rebuild(self) -> None:
        book = self._quotas.begin_book()
        kept = await self._kept()
        reader = self._reader(book, kept)
        if reader is None:
            # A book that could not take over what was kept may hold a part of it.
            book = self._quotas.begin_book()
            reader = self._reader_back(book)
        reader.start()
        try:
            await reader.caught_up.wait()
        finally:
            await reader.stop()
        self._quotas.use_book(book)
        log.info("quotas are known", models=list(self._quotas.limited), sequence=book.sequence)
        self._changed()

    async def _kept(self) -> QuotaWindows | None:
        """Returns the newest kept windows; none where there are none, or they are of a stream that is gone."""
        entry = await self._bucket.get(s.WINDOWS_KEY)
        value = codec.state.decode(entry.value) if entry is not None else None
        if not isinstance(value, QuotaWindows):
            return None
        newest = await self._platform.direct.at(s.EVENTS, value.sequence) if value.sequence else None
        return value if newest is not None else None

    def _reader(self, book: Book, kept: QuotaWindows | None) -> OrderedReader | None:
        if kept is None or not book.load(kept):
            return None
        return self._reading(book, start_sequence=kept.sequence + 1)

    def _reader_back(self, book: Book) -> OrderedReader:
        windows = [model.token_window_seconds * 1000 for model in self._quotas.limited.values()]
        start_ms = self._platform.now_ms() - max([MINUTE_MS, *windows]) - MINUTE_MS
        start = datetime.fromtimestamp(start_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
        return self._reading(book, start_time=start)

    def _reading(self, book: Book, *, start_sequence: int = 1, start_time: str | None = None) -> OrderedReader:
        def count(delivery: Delivery) -> None:
            note = read_note(delivery.header(s.H_CALL))
            if note is not None:
                book.count(delivery.sequence, delivery.timestamp_ns // 1_000_000, note)

        return OrderedReader(
            self._platform.connection,
            s.EVENTS,
            self._filters,
            count,
            start_sequence=start_sequence,
            start_time=start_time,
            headers_only=True,
            label="quotas",
        )

    def _show(self) -> None:
        now = self._platform.now_ms()
        for name in self._quotas.limited:
            self._used[name].set(self._quotas.used_ratio(name, now))

    async def _keep(self) -> None:
        """Keeps the windows where nobody has of late."""
        now = self._platform.now_ms()
        windows = self._quotas.kept(now)
        if windows is None:
            return
        entry = await self._bucket.get(s.WINDOWS_KEY)
        standing = codec.state.decode(entry.value) if entry is not None else None
        if isinstance(standing, QuotaWindows) and 0 <= now - standing.at_ms < KEEP_MS and _same(standing, windows):
            return
        try:
            await self._bucket.put(
                s.WINDOWS_KEY,
                codec.encode(windows),
                expected_revision=entry.revision if entry is not None else 0,
                budget_seconds=2.0,
            )
        except AlreadyStandsError:
            # Another router was first, with the same windows.
            return


def _same(standing: QuotaWindows, windows: QuotaWindows) -> bool:
    """Whether the same models are limited in the same way."""

    def limits(value: QuotaWindows) -> list[tuple[str, object, object]]:
        return [
            (one.model, one.tokens and (one.tokens.limit, one.tokens.window_ms), one.calls and one.calls.limit)
            for one in value.models
        ]

    return limits(standing) == limits(windows)
