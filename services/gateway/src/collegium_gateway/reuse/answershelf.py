"""Answers that all gateways share, in the bucket ``cache``: what stands there, reading one, adding one.

Every gateway follows the bucket without its payloads, so that it asks for nothing that is not there: a miss costs no
round trip. What is followed late, or was forgotten by the broker meanwhile, is a miss and no error. One rule: what is
read is checked against the tenant and the key that it was asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
from collegium_bus.connection import Connection
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import CachedAnswer

log = structlog.get_logger(__name__)

# As many as the bucket holds of short answers, at a hundred bytes each here.
MAX_KNOWN: Final = 200_000
# A call to a model takes longer than this, and the broker answers within a millisecond or is in trouble.
GET_SECONDS: Final = 0.5
_MARK_BYTES: Final = 16
_HEX_CHARS: Final = 64


class AnswerShelf:
    """The shared answers.

    ``on_replaced(digest, task_id)`` hears of each answer that anybody adds, ``on_cleared(tenant)`` of tenants whose
    answers were all removed.
    """

    def __init__(
        self,
        connection: Connection,
        on_replaced: Callable[[bytes, str], None],
        on_cleared: Callable[[str], None] = lambda _tenant: None,
    ) -> None:
        self._bucket = Bucket(connection, s.KV_CACHE)
        self._on_replaced = on_replaced
        self._on_cleared = on_cleared
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._following = self._bucket.follow_headers(self._learn)

    def start(self) -> None:
        """Begins to follow; until it has caught up, answers of before are missed."""
        self._following.start()

    async def stop(self) -> None:
        """Stops following."""
        await self._following.stop()

    def __len__(self) -> int:
        return len(self._known)

    def stored_at_ms(self, digest: bytes) -> int | None:
        """When the broker stored the answer of a key (Unix ms), or none where it is not known to stand."""
        return self._known.get(digest[:_MARK_BYTES])

    async def get(self, tenant: str, digest: bytes) -> CachedAnswer | None:
        """Returns a tenant's answer, or none: gone, not readable, or not told in time."""
        try:
            entry = await self._bucket.get(s.cache_key(tenant, digest), timeout_seconds=GET_SECONDS)
            value = codec.state.decode(entry.value) if entry is not None else None
        except (BusError, ContractError) as error:
            log.info("kept answer not readable", tenant=tenant, error=str(error))
            return None
        if not isinstance(value, CachedAnswer) or (value.tenant, value.digest) != (tenant, digest):
            self._known.pop(digest[:_MARK_BYTES], None)
            return None
        return value

    def put(self, answer: CachedAnswer) -> None:
        """Adds an answer without waiting; one that is lost is made again."""
        key = s.cache_key(answer.tenant, answer.digest)
        self._bucket.tell(key, codec.encode(answer), {s.H_TASK: answer.task_id})

    def _learn(self, delivery: Delivery) -> None:
        _, tenant, _ = delivery.subject.rsplit(".", 2)
        if delivery.subject.endswith(s.cache_cleared(tenant)):
            self._on_cleared(tenant)
            return
        try:
            digest = bytes.fromhex(delivery.subject[-_HEX_CHARS:])
        except ValueError:
            return
        mark = digest[:_MARK_BYTES]
        self._known[mark] = delivery.timestamp_ns // 1_000_000
        self._known.move_to_end(mark)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self._on_replaced(digest, delivery.header(s.H_TASK))
