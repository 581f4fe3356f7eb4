"""Standing pull requests against one consumer, over one inbox.

nats-py's ``fetch`` can stall for its whole timeout and does not survive a reconnect (nats.py#986). Here a few requests
with an expiry and an idle heartbeat stand at the broker all the time; a request that ended, for whatever reason, is
made anew, and one whose heartbeats stopped is given up. One rule: never more messages on their way than were asked
for.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable

import msgspec
import structlog

from collegium_bus.connection import Connection
from collegium_bus.errors import BrokerUnavailableError
from collegium_bus.wire import decode_headers

log = structlog.get_logger(__name__)

EXPIRES_SECONDS = 30.0
# Two and a half of them without a word, and the request is given up: a stream whose leader died has a new one by then.
HEARTBEAT_SECONDS = 2.0
REFUSED_PAUSE_SECONDS = 0.3
_CHECK_SECONDS = 1.0

OnMessage = Callable[[bytes, bytes, bytes, "bytes | None"], None]


class PullRequests:
    """Keeps pull requests standing for one consumer and hands each message to a synchronous callback.

    ``want(n)`` asks for n more messages, ``requested`` is how many are asked for and not yet here; the callback gets
    (subject, reply, payload, headers). ``on_lost`` is called with a reason when all requests were given up (reconnect,
    missing heartbeats, consumer gone), and without one when none stands, so that the owner can ask anew. ``on_idle`` is
    called at each heartbeat: the broker has had nothing to send for that long.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        on_message: OnMessage,
        *,
        on_lost: Callable[[str], None],
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.name = f"{stream}/{consumer}"
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_idle = on_idle
        self.requested = 0
        self._heard = 0.0
        self._inbox = f"{connection.inbox}.p.{secrets.token_hex(4)}"
        self._sid: int | None = None
        self._watch: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Opens the inbox; nothing is asked for yet."""
        self._sid = self._connection.client.subscribe_raw(self._inbox, self._on_raw)
        self._connection.on_reconnect.append(self._reconnected)
        self._watch = asyncio.create_task(self._watch_heartbeats(), name=f"pull-{self.name}")

    def stop(self) -> None:
        """Closes the inbox. Messages on their way come again after the ack wait."""
        if self._watch is not None:
            self._watch.cancel()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._sid is not None:
            self._connection.client.unsubscribe_raw(self._sid)
            self._sid = None
        if self._reconnected in self._connection.on_reconnect:
            self._connection.on_reconnect.remove(self._reconnected)
        self.requested = 0

    def want(self, messages: int, *, standing: bool = True) -> None:
        """Asks for that many more messages: ``standing`` waits for them, otherwise only what is there now is sent."""
        if messages <= 0 or self._sid is None:
            return
        waiting = {"expires": int(EXPIRES_SECONDS * 1e9), "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9)}
        body = msgspec.json.encode({"batch": messages, **(waiting if standing else {"no_wait": True})})
        try:
            self._connection.publish(self._subject, body, reply=self._inbox)
        except BrokerUnavailableError:
            return
        self.requested += messages
        self._heard = asyncio.get_running_loop().time()

    def _on_raw(self, subject: bytes, reply: bytes, payload: bytes, block: bytes | None) -> None:
        self._heard = asyncio.get_running_loop().time()
        if block is not None and not reply.startswith(b"$JS.ACK"):
            self._on_status(block)
            return
        self.requested = max(0, self.requested - 1)
        self._on_message(subject, reply, payload, block)

    def _on_status(self, block: bytes) -> None:
        """A request ended unfilled: 408 and some 409 say how many messages it still lacked; others end them all."""
        headers = decode_headers(block)
        status = headers.get("Status", "")
        if status == "100":
            if self._on_idle is not None:
                self._on_idle()
            return
        reason = headers.get("Description", "")
        unfilled = headers.get("Nats-Pending-Messages", "")
        self.requested = max(0, self.requested - int(unfilled)) if unfilled.isdigit() else 0
        if status not in ("404", "408"):
            log.info("pull request ended", consumer=self.name, status=status, reason=reason)
        if status == "503" or "Consumer Deleted" in reason:
            self._give_up_soon(reason or "no responders")
        else:
            self._on_lost("leadership change" if "Leadership Change" in reason else "")

    def _give_up_soon(self, reason: str) -> None:
        """Lets the owner ask anew after a pause: while a stream has no leader, every request is refused at once."""
        if self._pause is None:
            seconds = random.uniform(0.5, 1.0) * REFUSED_PAUSE_SECONDS  # noqa: S311 - jitter
            self._pause = asyncio.get_running_loop().call_later(seconds, self._after_pause, reason)

    def _after_pause(self, reason: str) -> None:
        self._pause = None
        self._give_up(reason)

    def _reconnected(self) -> None:
        self._give_up("reconnected")

    def _give_up(self, reason: str) -> None:
        self.requested = 0
        self._on_lost(reason)

    async def _watch_heartbeats(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_CHECK_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            if self.requested and loop.time() - self._heard > 2.5 * HEARTBEAT_SECONDS:
                self._give_up("heartbeats stopped")
            elif not self.requested and self._connection.is_connected:
                self._on_lost("")
