"""One service's connection to the broker: connect, publish, request, and what happens on a break.

All replies come to one inbox, told apart by a number; deadlines of all requests are kept by one sweeper instead of a
timer each. One rule: whoever waits for a reply gets it, a refusal, or :class:`NoAnswerError` in time, also across a
reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from collegium_bus.errors import BrokerUnavailableError, NoAnswerError, NotPermittedError, TooLargeError
from collegium_bus.wire import WireClient, check_subject, publish_command

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 0.25
# Enough to ride out a short reconnect at full load; beyond it senders are told that the broker is away.
MAX_PENDING_BYTES = 32 * 1024 * 1024

Reply = tuple[bytes, "bytes | None"]
_FORBIDDEN = re.compile(r'permissions violation for publish to "(.+)"')


class Connection:
    """A connected client of one service. Made by :func:`connect`."""

    def __init__(self, service: str, client: WireClient, inbox_prefix: str) -> None:
        self.service = service
        self.client = client
        self.instance = secrets.token_hex(4)
        self.inbox = f"{inbox_prefix}.{self.instance}"
        self.on_reconnect: list[Callable[[], None]] = []
        # Until the first connection stands, a failure is the caller's error and not a connection lost for good.
        self.opened = False
        self.closing = False
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, tuple[asyncio.Future[Reply], float, str]] = {}
        self._for_connection: list[asyncio.Future[None]] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._reply_prefix_bytes = len(self.inbox) + len(".r.")

    def start(self) -> None:
        """Opens the inbox and starts the sweeper."""
        self.opened = True
        self.client.subscribe_raw(f"{self.inbox}.r.*", self._on_reply)
        self._sweeper = asyncio.create_task(self._sweep(), name=f"{self.service}-request-sweeper")

    @property
    def is_connected(self) -> bool:
        """Whether the broker is reachable at this moment."""
        return self.client.is_connected

    def publish(self, subject: str, payload: bytes, *, headers: bytes | None = None, reply: str = "") -> None:
        """Sends a core NATS message (no acknowledgement).

        Raises InvalidSubjectError, TooLargeError beyond what the broker takes, and BrokerUnavailableError when too
        much is unsent.
        """
        check_subject(subject)
        if reply:
            check_subject(reply)
        size_bytes = len(payload) + len(headers) if headers is not None else len(payload)
        if size_bytes > self.client.max_payload:
            # The broker would close the connection of whoever sent it.
            raise TooLargeError(f"{subject}: a message of {size_bytes} bytes is over {self.client.max_payload}")
        if self.client.is_closed or self.client.pending_data_size > MAX_PENDING_BYTES:
            raise BrokerUnavailableError(f"{subject}: the broker is away and the send buffer is full; try again later")
        self.client.send(publish_command(subject, reply, headers, payload))

    async def request_raw(
        self, subject: str, payload: bytes, *, headers: bytes | None = None, timeout_seconds: float = 5.0
    ) -> Reply:
        """Sends a request and returns payload and raw headers of the reply.

        While the broker is away nothing is sent: what stood in a send buffer would be carried out after the reconnect,
        when its sender has long been told that it failed. Raises NoAnswerError after ``timeout_seconds``, or at once
        where nobody listens on the subject, InvalidSubjectError, NotPermittedError where this service may not publish
        there, and TooLargeError beyond what the broker takes.
        """
        if not self.client.is_connected:
            timeout_seconds -= await self._wait_connected(subject, timeout_seconds)
        number = b"%d" % next(self._numbers)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting[number] = (future, loop.time() + timeout_seconds, subject)
        try:
            self.publish(subject, payload, headers=headers, reply=f"{self.inbox}.r.{number.decode()}")
            reply = await future
        finally:
            self._waiting.pop(number, None)
        block = reply[1]
        if block is not None and block.startswith(b"NATS/1.0 503"):
            raise NoAnswerError(f"{subject}: nobody is listening")
        return reply

    async def _wait_connected(self, subject: str, timeout_seconds: float) -> float:
        """Returns once the broker is there, and how long that took; NoAnswerError where it does not come in time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting: asyncio.Future[None] = loop.create_future()
        self._for_connection.append(waiting)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiting
        except TimeoutError:
            raise NoAnswerError(f"{subject}: the broker is away") from None
        finally:
            with contextlib.suppress(ValueError):
                self._for_connection.remove(waiting)
        return loop.time() - began

    def connected_again(self) -> None:
        """Lets go whoever waited for the broker."""
        waiting, self._for_connection = self._for_connection, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def not_permitted(self, complaint: str) -> None:
        """Tells whoever waits on a subject that the broker complains of: there will be no reply."""
        found = _FORBIDDEN.search(complaint)
        if found is None:
            return
        for future, _, subject in list(self._waiting.values()):
            # nats-py hands complaints on in lower case.
            if subject.lower() == found[1] and not future.done():
                future.set_exception(NotPermittedError(f"{subject}: this service may not publish there"))

    def _on_reply(self, subject: bytes, _reply: bytes, payload: bytes, headers: bytes | None) -> None:
        entry = self._waiting.get(subject[self._reply_prefix_bytes :])
        if entry is not None and not entry[0].done():
            entry[0].set_result((payload, headers))

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for future, deadline, _ in list(self._waiting.values()):
                if deadline < now and not future.done():
                    future.set_exception(NoAnswerError("no reply in time"))

    async def api(self, subject: str, body: bytes = b"", *, timeout_seconds: float = 5.0) -> bytes:
        """Asks JetStream's API and returns the raw JSON reply."""
        payload, _ = await self.request_raw(f"$JS.API.{subject}", body, timeout_seconds=timeout_seconds)
        return payload

    async def flush(self) -> None:
        """Waits until the broker has processed everything sent so far."""
        await self.client.flush(timeout=10)

    async def close(self) -> None:
        """Flushes and closes the connection; whoever still waits for a reply gets NoAnswerError."""
        self.closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError):
            if self.client.is_connected:
                await self.client.flush(timeout=2)
        # uvloop raises a RuntimeError where nats-py writes to a transport that the broker has just closed.
        with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError, RuntimeError):
            await self.client.close()
        for future, _, _ in list(self._waiting.values()):
            if not future.done():
                future.set_exception(NoAnswerError("the connection was closed"))
        for waiting in self._for_connection:
            if not waiting.done():
                waiting.set_exception(NoAnswerError("the connection was closed"))


def client_options(
    connection_name: str,
    inbox_prefix: str,
    *,
    nkey_seed: str | None = None,
    creds: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> dict[str, Any]:
    """Returns nats-py's connect options as this platform wants them: reconnect for ever, with jitter."""
    options: dict[str, Any] = {
        "name": connection_name,
        "inbox_prefix": inbox_prefix,
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2 + random.random() * 0.3,  # noqa: S311 - jitter
        "connect_timeout": 5,
        "ping_interval": 10,
        "max_outstanding_pings": 2,
        "pending_size": MAX_PENDING_BYTES,
        "skip_subject_validation": True,
    }
    if nkey_seed is not None:
        options["nkeys_seed_str"] = nkey_seed
    if creds is not None:
        options["user_credentials"] = str(creds)
    if tls is not None:
        options["tls"] = tls
    return options


async def connect(
    url: str,
    service: str,
    *,
    inbox_prefix: str = "",
    nkey_seed: str | None = None,
    creds: Path | None = None,
    tls: ssl.SSLContext | None = None,
    on_closed: Callable[[], Awaitable[None]] | None = None,
) -> Connection:
    """Connects a service to the broker; raises BrokerUnavailableError with the address's reason when it cannot.

    ``on_closed`` is called when the client gave up for good (it never does for a lost connection).
    """
    prefix = inbox_prefix or f"_INBOX.{service}"
    client = WireClient()
    options = client_options(f"collegium-{service}", prefix, nkey_seed=nkey_seed, creds=creds, tls=tls)
    options.update(allow_reconnect=False, max_reconnect_attempts=1)
    connection = Connection(service, client, prefix)

    async def reconnected() -> None:
        log.info("broker reconnected", service=service)
        connection.connected_again()
        for callback in connection.on_reconnect:
            callback()

    async def disconnected() -> None:
        if connection.closing:
            return
        log.warning("broker disconnected", service=service)

    async def failed(error: Exception) -> None:
        log.warning("broker connection error", service=service, error=str(error) or type(error).__name__)
        connection.not_permitted(str(error))

    async def closed() -> None:
        if on_closed is not None and connection.opened and not connection.closing:
            await on_closed()

    try:
        await client.connect(
            servers=[part.strip() for part in url.split(",")],
            reconnected_cb=reconnected,
            disconnected_cb=disconnected,
            error_cb=failed,
            closed_cb=closed,
            **options,
        )
    except (TimeoutError, NatsError, OSError) as error:
        with contextlib.suppress(NatsError, OSError):
            await client.close()
        raise BrokerUnavailableError(f"cannot connect to the broker: {error or type(error).__name__}") from error
    _reconnect_for_ever(client)
    connection.start()
    await client.flush()
    return connection


def _reconnect_for_ever(client: Client) -> None:
    """The first connection fails fast, so that a wrong address is told at once; later breaks are ridden out."""
    client.options["allow_reconnect"] = True
    client.options["max_reconnect_attempts"] = -1
