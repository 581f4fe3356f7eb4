"""Dead letters: what a service could not handle, kept with its original bytes.

One rule: the original is acknowledged only after its dead letter is stored.
"""

from __future__ import annotations

import time

import structlog
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.messages import DeadLetter

from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.publisher import Publisher

log = structlog.get_logger(__name__)


class DeadLetters:
    """Writes one service's dead letters."""

    def __init__(self, publisher: Publisher, service: str) -> None:
        self._publisher = publisher
        self._service = service

    async def bury(self, delivery: Delivery, cause: str, detail: str) -> bool:
        """Stores a dead letter for a delivery; false where it could not be stored (then keep the original)."""
        headers = delivery.headers
        letter = DeadLetter(
            service=self._service,
            subject=delivery.subject,
            cause=cause,
            detail=detail,
            payload=delivery.payload,
            at_ms=int(time.time() * 1000),
            stream=delivery.stream,
            sequence=delivery.sequence,
            delivery=delivery.delivered,
            headers=headers,
        )
        # The headers of what could not be read are as untrusted as its bytes.
        tenant = headers.get(s.H_TENANT, "")
        tenant = tenant if TENANT_ID.match(tenant) else ""
        try:
            await self._publisher.publish(
                s.dead(self._service, tenant),
                encode(letter),
                message_id=f"{self._service}.{delivery.stream}.{delivery.sequence}",
                headers={s.TRACEPARENT: headers.get(s.TRACEPARENT, "")},
            )
        except BusError as error:
            log.error("dead letter not stored", subject=delivery.subject, sequence=delivery.sequence, error=str(error))
            return False
        log.warning("dead letter", subject=delivery.subject, sequence=delivery.sequence, cause=cause, detail=detail)
        return True
