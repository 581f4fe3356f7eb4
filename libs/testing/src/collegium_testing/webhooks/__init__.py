"""A receiver of webhooks: a real HTTP server that answers as it is told, checks signatures, and keeps what came.

    async with WebhookReceiver(secret="whsec_…") as receiver:
        receiver.script(500, Reply(200, delay_ms=50))
        ... submit a task with callback_url=receiver.url ...
        await eventually(lambda: len(receiver.received) == 2)
        assert receiver.received[-1].verified

or, for anyone's own trials, `python -m collegium_testing.webhooks --port 8901 --secret whsec_…`, which prints one JSON
line for each request.

Here: `WebhookReceiver`, and `verify` as a receiver would write it from the standard (standardwebhooks.com) alone. Not
here: anything of the sender. The one rule: a request is judged by its headers and its bytes, never by what was sent.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

from collegium_testing.http1 import Http1Connection, Request, listen, stop_listening

TOLERANCE_SECONDS = 300
# What is kept; the oldest goes first.
MAX_RECEIVED = 100_000
_PREFIX = "whsec_"
_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request is answered: after a delay, with a status and ready header lines (each with its CRLF)."""

    status: int = 200
    delay_ms: float = 0
    headers: bytes = b""
    body: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Received:
    """One request: the standard's headers, the body, whether a signature was right, and how it was answered."""

    id: str
    timestamp: str
    signature: str
    path: str
    body: bytes
    verified: bool
    status: int

    @property
    def event(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_seconds: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> bool:
    """Tells whether one of a request's signatures was made with the secret, lately; header names are lower case."""
    message, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message or not (timestamp.isascii() and timestamp.isdigit()):
        return False
    if abs(now_seconds - int(timestamp)) > tolerance_seconds:
        return False
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        return False
    digest = hmac.new(key, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    wanted = "v1," + base64.b64encode(digest).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(wanted.encode(), one.encode()) for one in given)


class WebhookReceiver:
    """A receiver on the running event loop, from `async with` to its end.

    `port` 0 takes a free one. Without a `secret` (it may be set later) no request counts as verified. What `script`
    gave answers the next requests, one each; after that, and without one, the answer is 200. `on_received` is called
    with each request.
    """

    def __init__(
        self,
        *,
        secret: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        on_received: Callable[[Received], None] | None = None,
    ) -> None:
        self.secret = secret
        self.received: deque[Received] = deque(maxlen=MAX_RECEIVED)
        self._host = host
        self._port = port
        self._on_received = on_received
        self._replies: deque[Reply] = deque()
        self._connections: set[Http1Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server, self._port = await listen(self._handle, self._host, self._port, self._connections)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await stop_listening(self._server, self._connections)

    @property
    def url(self) -> str:
        """An address to give as `callback_url`; any other path of it does as well."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/hook"

    def script(self, *replies: Reply | int) -> None:
        """Puts these answers (or statuses) in place of those that were left."""
        self._replies = deque(Reply(one) if isinstance(one, int) else one for one in replies)

    def of(self, message: str) -> list[Received]:
        """Returns what came under one `webhook-id`."""
        return [one for one in self.received if one.id == message]

    def _handle(self, connection: Http1Connection, request: Request) -> None:
        reply = self._replies.popleft() if self._replies else Reply()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
        received = Received(
            id=headers.get("webhook-id", ""),
            timestamp=headers.get("webhook-timestamp", ""),
            signature=headers.get("webhook-signature", ""),
            path=f"{request.path}?{request.query}" if request.query else request.path,
            body=request.body,
            verified=bool(self.secret) and verify(self.secret, headers, request.body, now_seconds=time.time()),
            status=reply.status,
        )
        self.received.append(received)
        if self._on_received is not None:
            self._on_received(received)
        self._answer(connection, reply)

    def _answer(self, connection: Http1Connection, reply: Reply) -> None:
        body = b"" if reply.status in _WITHOUT_BODY else reply.body
        if not reply.delay_ms:
            connection.reply(reply.status, body, headers=reply.headers)
            return

        def later() -> None:
            connection.on_disconnect = None
            connection.reply(reply.status, body, headers=reply.headers)

        timer = asyncio.get_running_loop().call_later(reply.delay_ms / 1000, later)
        connection.on_disconnect = timer.cancel
