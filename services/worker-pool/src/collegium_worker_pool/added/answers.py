"""Who routers ask what an endpoint can do: a worker of the model's pool, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import Message
from collegium_contracts.requests import Refused
from collegium_contracts.roster_requests import EndpointProbe
from collegium_runtime.platform import Platform

from collegium_worker_pool.added.probing import Probing

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4


class ProbeAnswers:
    """Answers ``svc.workers.probe.<pool>`` for the pools served here; of several workers one is asked."""

    def __init__(self, platform: Platform, probing: Probing, pools: Iterable[str]) -> None:
        self._connection = platform.connection
        self._probing = probing
        self._pools = tuple(pools)
        self._subscriptions: list[int] = []
        self._answering: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins answering."""
        client, service = self._connection.client, self._connection.service
        self._subscriptions = [
            client.subscribe_raw(s.svc_workers_probe(pool), self._on_request, service) for pool in self._pools
        ]

    async def stop(self) -> None:
        """Answers no more; what was asked before is left to the asker's deadline."""
        for subscription in self._subscriptions:
            self._connection.client.unsubscribe_raw(subscription)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _on_request(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        if not reply:
            return
        if len(self._answering) >= AT_ONCE:
            busy = Refused(code="no_worker", message="other models are being probed; ask again")
            self._connection.publish(reply.decode(), codec.encode(busy))
            return
        task = asyncio.create_task(self._answer(reply.decode(), payload))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, reply: str, payload: bytes) -> None:
        try:
            asked = codec.request.decode(payload)
            if not isinstance(asked, EndpointProbe):
                raise RequestRefusedError("invalid_value", f"EndpointProbe is asked here, not {type(asked).__name__}")
            answer: Message = await self._probing.probe(asked)
        except RequestRefusedError as error:
            answer = Refused(code=error.code, message=error.message, param=error.param)
        except ContractError as error:
            answer = Refused(code="invalid_value", message=str(error))
        except BusError as error:
            log.warning("endpoint not probed", error=str(error))
            answer = Refused(code="broker_unavailable", message="the probes cannot be booked now; ask again")
        self._connection.publish(reply, codec.encode(answer))
