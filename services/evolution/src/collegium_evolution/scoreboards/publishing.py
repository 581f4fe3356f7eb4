"""Publishing the scoreboard: after folds, at most once a second, by all replicas and never backwards.

The bucket's revision is read before the scores are, and the value is stored only on that revision; so of two replicas
the one whose scores are older is refused, and publishes anew. One rule: a scoreboard that cannot be published costs
freshness, and nothing waits for it.
"""

from __future__ import annotations

import asyncio

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.consumers import Consumer
from collegium_contracts.errors import ContractError
from collegium_contracts.state import Scoreboard
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_evolution.scoreboards.store import Store

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0
_PUT_SECONDS = 5.0


class _Position(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _ConsumerInfo(msgspec.Struct, frozen=True):
    ack_floor: _Position = _Position()


_decode_info = msgspec.json.Decoder(_ConsumerInfo).decode


class ScoreboardPublisher:
    """Publishes the scoreboard some time after :meth:`changed` was called."""

    def __init__(
        self,
        store: Store,
        platform: Platform,
        consumer: Consumer,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._store = store
        self._connection = platform.connection
        self._bucket = Bucket(platform.connection, s.KV_POLICY)
        self._info_subject = f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}"
        self._now_ms = platform.now_ms
        self._unreadable = platform.metrics.counter(
            names.METRIC_POLICY_UNREADABLE, "Values of the bucket policy that could not be read, and were replaced"
        )
        self._interval_seconds = interval_seconds
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Says that scores changed."""
        self._changed.set()

    def start(self) -> None:
        """Publishes what stands, and then what changes."""
        self._changed.set()
        self._task = asyncio.create_task(self._run(), name="scoreboard")

    async def stop(self) -> None:
        """Stops; what was folded since the last time is published by the next who starts."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish()
            except AlreadyStandsError:
                self._changed.set()
            except Exception as error:  # whatever failed, the next round may succeed
                log.warning("scoreboard not published, trying again", error=str(error) or type(error).__name__)
                self._changed.set()
            await asyncio.sleep(self._interval_seconds)

    async def _publish(self) -> None:
        info = _decode_info(await self._connection.api(self._info_subject))
        await self._store.advance(info.ack_floor.stream_seq)
        standing = await self._bucket.get(s.SCOREBOARD_KEY)
        if standing is not None and not _is_readable(standing.value):
            self._unreadable.inc()
            log.error("the published scoreboard cannot be read, publishing it anew", revision=standing.revision)
        board = await self._store.board()
        value = Scoreboard(folded_sequence=board.folded_sequence, at_ms=self._now_ms(), scores=board.scores)
        await self._bucket.put(
            s.SCOREBOARD_KEY,
            encode(value),
            expected_revision=standing.revision if standing is not None else 0,
            budget_seconds=_PUT_SECONDS,
        )


def _is_readable(value: bytes) -> bool:
    try:
        return isinstance(codec.state.decode(value), Scoreboard)
    except ContractError:
        return False
