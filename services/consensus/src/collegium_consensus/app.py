"""Wiring of consensus: consumers of ended attempts and of what people answer, and a look after overdue plans."""

from __future__ import annotations

from collegium_bus.events import EventLoop
from collegium_contracts import codec, consumers
from collegium_contracts.messages import JourneyMessage
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_consensus.handlers import Verdicts
from collegium_consensus.people.inputs import Inputs
from collegium_consensus.testing.testers import Testers

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
        self._inputs: EventLoop[JourneyMessage] = EventLoop(
            platform.connection,
            consumers.consumer("inputs"),
            codec.journey,
            Inputs(platform).handle,
            platform.dead_letters,
            linger_seconds=LINGER_SECONDS,
        )
        self._testers = Testers(platform)
        self._started = False

    async def start(self) -> None:
        """Begins to judge."""
        await self._verdicts.policies.start()
        self._verdicts.overdue.start()
        self._loop.start()
        self._inputs.start()
        self._testers.start()
        self._platform.metrics.watch_gauge(names.METRIC_QUEUE_DEPTH, lambda: self._loop.lag)
        self._started = True

    async def stop(self) -> None:
        """Takes no more events; what was not settled comes again to the next who asks."""
        self._started = False
        await self._loop.stop()
        await self._inputs.stop()
        await self._testers.stop()
        await self._verdicts.overdue.stop()
        await self._verdicts.policies.stop()

    @property
    def watched(self) -> int:
        """How many running plans are looked after when their time is over."""
        return self._verdicts.overdue.watched

    def readiness(self) -> dict[str, bool]:
        """Whether plans are being judged."""
        return {"judging": self._started}


def build(platform: Platform) -> ConsensusApp:
    """Builds the service."""
    return ConsensusApp(platform)
