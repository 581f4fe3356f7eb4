"""FastStream as the shell for questions: subscribers, queue groups, lifecycle and AsyncAPI over our own connection.

The broker object shares the service's one :class:`Connection` (and so its credentials and reconnects). Work queues and
event folds do not come through here: a pull subscriber of FastStream waits for its whole batch, and middleware costs
several hundred microseconds a message (docs/decisions). One rule: a handler returns a typed reply; whatever else
happens becomes a typed refusal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import UNSTORABLE, ContractError
from collegium_contracts.messages import Message
from collegium_contracts.requests import Refused
from faststream.nats import NatsBroker, NatsMessage
from nats.aio.client import Client

from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError

log = structlog.get_logger(__name__)

# Questions of one kind answered at the same time; FastStream would take them one by one, and some wait for a while.
MAX_AT_ONCE = 64

# Answers a decoded question; the second argument is the question's traceparent, empty where there was none.
Handler = Callable[[Any, str], Awaitable[Message]]


async def _undecoded(message: NatsMessage) -> tuple[bytes, str]:
    """Hands the handler the bytes and the trace context; decoding is ours, so that its errors are typed."""
    return message.body, message.headers.get(s.TRACEPARENT, "")


class _SharedBroker(NatsBroker):
    """A FastStream broker over a connection that somebody else opened and closes."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(apply_types=False, logger=None)
        self._shared = connection.client

    async def _connect(self) -> Client:
        self.config.connect(self._shared)
        return self._shared

    async def stop(self, *_args: Any, **_fields: Any) -> None:
        """Stops the subscribers and leaves the connection open."""
        for subscriber in self.subscribers:
            await subscriber.stop()
        self._connection = None
        self.config.disconnect()


def _never(_error: Exception) -> bool:
    return False


class Answering:
    """Answers the questions on ``svc.<service>.*``, shared by all replicas of the service through a queue group.

    ``is_unstorable`` tells whether a handler's error is a text's that cannot be stored, and so the asker's fault.
    """

    def __init__(
        self, connection: Connection, handlers: dict[str, Handler], is_unstorable: Callable[[Exception], bool] = _never
    ) -> None:
        self._service = connection.service
        self._is_unstorable = is_unstorable
        self.broker = _SharedBroker(connection)
        for subject, handler in handlers.items():
            subscriber = self.broker.subscriber(
                subject, queue=self._service, decoder=_undecoded, max_workers=MAX_AT_ONCE
            )
            subscriber(self._wrap(subject, handler))

    async def start(self) -> None:
        """Subscribes; when it returns, the broker knows of the subscriptions."""
        await self.broker.start()
        await self.broker.connection.flush()

    async def stop(self) -> None:
        """Unsubscribes."""
        await self.broker.stop()

    def _wrap(self, subject: str, handler: Handler) -> Callable[[Any], Awaitable[bytes]]:
        async def answer(received: tuple[bytes, str]) -> bytes:
            return codec.encode(await self._answer(subject, handler, *received))

        return answer

    async def _answer(self, subject: str, handler: Handler, body: bytes, traceparent: str) -> Message:
        try:
            return await handler(codec.request.decode(body), traceparent)
        except RequestRefusedError as error:
            return Refused(code=error.code, message=error.message, param=error.param)
        except ContractError as error:
            return Refused(code="invalid_value", message=str(error))
        except Exception as error:  # the asker must get an answer whatever failed here
            if self._is_unstorable(error):
                return Refused(code="invalid_value", message=UNSTORABLE)
            log.error("question failed", service=self._service, subject=subject, exc_info=error)
            return Refused(code="internal_error", message=f"{self._service} failed on {subject}; see its log")
