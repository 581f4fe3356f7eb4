"""Waiting until a tenant's own writes are folded.

The newest settled message of the tenant is the mark. The consumer is shared by all replicas, so what one of them has
folded says nothing about the others: the broker is asked how far everything was acknowledged, and an event is
acknowledged after its turn was committed. One rule: an answer is given from a state that holds the mark, or refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.direct import DirectReader
from collegium_bus.errors import NoAnswerError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.consumers import Consumer
from collegium_contracts.errors import UndecodableMessageError

# Below the time that the router waits for its answer.
WAIT_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.05


class _Position(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True):
    """How far a durable consumer is, as the broker says."""

    ack_floor: _Position = _Position()
    delivered: _Position = _Position()
    num_ack_pending: int = 0
    error: dict[str, Any] | None = None

    def has_folded(self, sequence: int) -> bool:
        """Whether everything up to a sequence that stands in the stream was handled.

        The number of messages still to be delivered is not looked at: it lags behind a message just stored.
        """
        if self.error is not None:
            return False
        return self.ack_floor.stream_seq >= sequence or (
            self.delivered.stream_seq >= sequence and self.num_ack_pending == 0
        )


_decode_info = msgspec.json.Decoder(ConsumerInfo).decode


class Freshness:
    """Waits for the fold of one consumer; ``hurry`` lets this replica's share of it collect no more."""

    def __init__(
        self,
        connection: Connection,
        direct: DirectReader,
        consumer: Consumer,
        hurry: Callable[[], None],
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._connection = connection
        self._direct = direct
        self._subject = f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}"
        self._hurry = hurry
        self._wait_seconds = wait_seconds

    async def wait(self, tenant: str) -> None:
        """Returns when the tenant's newest settled message is folded; refuses with ``context_unavailable`` in time."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                newest = await self._direct.last(
                    s.EVENTS, s.settled_of_tenant(tenant), timeout_seconds=self._wait_seconds
                )
                if newest is not None:
                    await self._until_folded(newest.sequence)
        except (TimeoutError, NoAnswerError, UndecodableMessageError) as error:
            raise RequestRefusedError(
                "context_unavailable", f"the newest turns of tenant {tenant} are not readable yet; ask again"
            ) from error

    async def _until_folded(self, sequence: int) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not _decode_info(await self._connection.api(self._subject)).has_folded(sequence):
            self._hurry()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
