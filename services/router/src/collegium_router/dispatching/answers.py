"""Telling where a task stands in the queue: each shard's owner answers for its tenants, from memory.

One rule: an answer carries the time of the index it was read from; a position is what would go
before the task if nothing more came.
"""

from __future__ import annotations

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.requests import QueueReply, QueueRequest
from collegium_runtime.platform import Platform

from collegium_router.dispatching.dispatch import Dispatcher


class QueueAnswers:
    """Answers ``svc.router.queue.<shard>`` for the shards owned."""

    def __init__(self, platform: Platform, dispatcher: Dispatcher) -> None:
        self._platform = platform
        self._dispatcher = dispatcher
        self._subscriptions: dict[int, int] = {}

    def answer_for(self, shards: frozenset[int]) -> None:
        """Answers for these shards from now on, and for no others."""
        client = self._platform.connection.client
        for shard in set(self._subscriptions) - shards:
            client.unsubscribe_raw(self._subscriptions.pop(shard))
        for shard in shards - set(self._subscriptions):
            self._subscriptions[shard] = client.subscribe_raw(s.queue_of_shard(shard), self._on_request)

    def stop(self) -> None:
        """Answers no more."""
        self.answer_for(frozenset())

    def _on_request(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        try:
            asked = codec.request.decode(payload)
        except ContractError:
            return
        if isinstance(asked, QueueRequest) and reply:
            self._platform.connection.publish(reply.decode(), codec.encode(self._answer(asked)))

    def _answer(self, asked: QueueRequest) -> QueueReply:
        now = self._platform.now_ms()
        queued = self._dispatcher.queued_of(asked.tenant)
        standing = self._dispatcher.standing(asked.task) if asked.task else None
        position = standing.position if standing is not None else 0
        rate = self._dispatcher.per_second()
        return QueueReply(
            position=position,
            queued=queued,
            at_ms=now,
            wait_seconds=position / rate if position and rate else None,
            waits_until_ms=standing.waits_until_ms if standing is not None else 0,
        )
