"""Wiring of consensus: one consumer of ended attempts, and a look after plans whose time ran out."""

from __future__ import annotations

from collegium_bus.events import EventLoop
from collegium_contracts import codec, consumers
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_consensus.handlers import Verdicts

# A client waits for the verdict, so events are not collected for long.
LINGER_SECONDS = 0.002


class ConsensusApp:
    """Consensus as a service."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._verdicts = Verdicts(platform)
        self._loop: EventLoop[JourneyMessage] = EventLoop(
            platform.connection,
            consumers.consumer("verdicts"),
            codec.journey,
            self._verdicts.handle,
            platform.dead_letters,
            linger_seconds=LINGER_SECONDS,
        )
        self._started = False

    async def start(self) -> None:
        """Begins to judge."""
        self._verdicts.overdue.start()
        self._loop.start()
        self._platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._loop.lag)
        self._started = True

    async def stop(self) -> None:
        """Takes no more events; what was not settled comes again to the next who asks."""
        self._started = False
        await self._loop.stop()
        await self._verdicts.overdue.stop()

    def readiness(self) -> dict[str, bool]:
        """Whether plans are being judged."""
        return {"judging": self._started}


def build(platform: Platform) -> ConsensusApp:
    """Builds the service."""
    return ConsensusApp(platform)
