"""Reading a stream in order, without acknowledgements, from a sequence on.

An ephemeral pull consumer in the broker's memory; a gap, a lost consumer or a reconnect makes a new one that goes on
after the last message handed over. One rule: the callback sees every matching message once, in stream order.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import NoAnswerError
from collegium_bus.pull import PullRequests

log = structlog.get_logger(__name__)

BATCH = 512
INACTIVE_SECONDS = 60


class _Created(msgspec.Struct):
    num_pending: int = 0
    error: dict[str, Any] | None = None


class OrderedReader:
    """Calls ``on_message(delivery)`` for each message of the filters, in order.

    ``start_sequence`` (from 1) or ``start_time`` (RFC 3339) says where to begin; ``last_per_subject`` begins with the
    newest message of each subject; ``headers_only`` leaves the payloads at the broker. ``caught_up`` is set once
    everything that stood at the start was handed over.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str],
        on_message: Callable[[Delivery], None],
        *,
        start_sequence: int = 1,
        start_time: str | None = None,
        last_per_subject: bool = False,
        headers_only: bool = False,
        label: str = "ordered",
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = list(filters)
        self._on_message = on_message
        self._start_time = start_time
        self._last_per_subject = last_per_subject
        self._headers_only = headers_only
        self._next_sequence = start_sequence
        self._label = label
        self._consumer_sequence = 0
        self._pending_at_start = 0
        self._pulls: PullRequests | None = None
        self._reset_needed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.caught_up = asyncio.Event()

    def start(self) -> None:
        """Starts reading."""
        self._reset_needed.set()
        self._task = asyncio.create_task(self._keep_reading(), name=f"{self._label}-{self._stream}")

    async def stop(self) -> None:
        """Stops reading; the ephemeral consumer expires by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._pulls is not None:
            self._pulls.stop()

    async def _keep_reading(self) -> None:
        while True:
            await self._reset_needed.wait()
            self._reset_needed.clear()
            if self._pulls is not None:
                self._pulls.stop()
            try:
                await self._open()
            except NoAnswerError as error:
                log.info("ordered reader waits for the broker", reader=self._label, error=str(error))
                await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - jitter
                self._reset_needed.set()

    async def _open(self) -> None:
        name = f"{self._label}-{secrets.token_hex(6)}"
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(INACTIVE_SECONDS * 1e9),
            "max_deliver": 1,
            "filter_subjects": self._filters,
            "headers_only": self._headers_only,
            **self._where(),
        }
        raw = await self._connection.api(
            f"CONSUMER.CREATE.{self._stream}.{name}",
            msgspec.json.encode({"stream_name": self._stream, "config": config, "action": "create"}),
        )
        created = msgspec.json.decode(raw, type=_Created)
        if created.error is not None:
            raise NoAnswerError(f"{self._stream}: {created.error.get('description')}")
        self._consumer_sequence = 0
        self._pending_at_start = created.num_pending
        if created.num_pending == 0:
            self.caught_up.set()
        # Without a message for a heartbeat, what stood at the start and did not come was removed meanwhile.
        self._pulls = PullRequests(
            self._connection, self._stream, name, self._on_raw, on_lost=self._lost, on_idle=self.caught_up.set
        )
        self._pulls.start()
        self._pulls.want(BATCH)

    def _where(self) -> dict[str, Any]:
        if self._next_sequence > 1:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._next_sequence}
        if self._last_per_subject:
            return {"deliver_policy": "last_per_subject"}
        if self._start_time is not None:
            return {"deliver_policy": "by_start_time", "opt_start_time": self._start_time}
        return {"deliver_policy": "all"}

    def _on_raw(self, subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        delivery = Delivery(self._connection, subject, reply, payload, block)
        tokens = reply.split(b".")
        pending = -1 if len(tokens) in (9, 11) else -2
        self._consumer_sequence += 1
        if int(tokens[pending - 2]) != self._consumer_sequence:
            log.warning("gap in an ordered read, reading again", reader=self._label, sequence=delivery.sequence)
            self._reset_needed.set()
            return
        if delivery.sequence < self._next_sequence:
            return
        self._next_sequence = delivery.sequence + 1
        self._on_message(delivery)
        if self._consumer_sequence >= self._pending_at_start or tokens[pending] == b"0":
            self.caught_up.set()
        if self._pulls is not None and self._pulls.requested < BATCH // 2:
            self._pulls.want(BATCH)

    def _lost(self, reason: str) -> None:
        if reason:
            self._reset_needed.set()
        elif self._pulls is not None and self._pulls.requested == 0:
            self._pulls.want(BATCH)
