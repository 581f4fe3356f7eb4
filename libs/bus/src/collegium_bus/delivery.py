"""One message as a consumer delivered it, and the ways to answer for it.

``ack`` and ``nak`` are single writes; ``ack_sync`` waits for the broker. One rule: a delivery is answered once.
"""

from __future__ import annotations

from collections.abc import Callable

from collegium_contracts.subjects import original

from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError
from collegium_bus.wire import decode_headers, header_of, publish_command

_ACK = b"+ACK"
_PROGRESS = b"+WPI"
_TERM = b"+TERM"


class Delivery:
    """A delivered message: subject, payload, where it is stored, and how often it was delivered (from 1).

    A message that one consumer gets again, from its dead letter, has the subject that it had the first time. ``on_ack``
    takes acknowledgements over, by reply subject, for whoever sends them together.
    """

    __slots__ = (
        "_connection",
        "block",
        "consumer",
        "delivered",
        "is_acknowledged",
        "on_ack",
        "payload",
        "reply",
        "sequence",
        "stream",
        "subject",
        "timestamp_ns",
    )

    def __init__(
        self, connection: Connection, subject: bytes, reply: bytes, payload: bytes, block: bytes | None
    ) -> None:
        self._connection = connection
        self.subject = original(subject.decode())
        self.payload = payload
        self.block = block
        self.reply = reply
        self.is_acknowledged = False
        self.on_ack: Callable[[bytes], None] | None = None
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>, or with domain and
        # account hash before the stream (ADR-15 of the NATS architecture).
        tokens = reply.split(b".")
        shift = 0 if len(tokens) == 9 else 2
        self.stream = tokens[2 + shift].decode()
        self.consumer = tokens[3 + shift].decode()
        self.delivered = int(tokens[4 + shift])
        self.sequence = int(tokens[5 + shift])
        self.timestamp_ns = int(tokens[7 + shift])

    @property
    def headers(self) -> dict[str, str]:
        """All headers, read at each use."""
        return decode_headers(self.block)

    def header(self, name: str) -> str:
        """One header's value; empty where absent."""
        return header_of(self.block, name.encode())

    def _answer(self, body: bytes) -> None:
        self._connection.client.send(publish_command(self.reply.decode(), "", None, body))

    def ack(self) -> None:
        """Acknowledges without waiting: lost with the connection, the message comes again."""
        self.is_acknowledged = True
        if self.on_ack is not None:
            self.on_ack(self.reply)
        else:
            self._answer(_ACK)

    async def ack_sync(self, *, timeout_seconds: float = 5.0) -> bool:
        """Acknowledges and waits for the broker; false where it did not answer (the message may come again)."""
        try:
            await self._connection.request_raw(self.reply.decode(), _ACK, timeout_seconds=timeout_seconds)
        except NoAnswerError:
            return False
        return True

    def in_progress(self) -> None:
        """Renews the lease."""
        self._answer(_PROGRESS)

    def nak(self, delay_seconds: float) -> None:
        """Gives the message back for redelivery after a delay (a plain nak ignores every backoff)."""
        self._answer(b'-NAK {"delay": %d}' % int(delay_seconds * 1e9))

    def term(self) -> None:
        """Ends the message without redelivery."""
        self._answer(_TERM)


def acknowledge(connection: Connection, reply: bytes) -> None:
    """Acknowledges a message that is known by its reply subject alone; doing it again changes nothing."""
    connection.client.send(publish_command(reply.decode(), "", None, _ACK))
