"""A small HTTP/1.1 server side on asyncio: what the model simulator and the OTLP receiver listen with.

Here: parsing (httptools), keep-alive, pipelining, framing of replies and chunks, and knowing at once when the
client has gone. Not here: routes, or any meaning of a request. It spends one callback per header and one write
per reply, because the simulator is the upstream of benchmarks on the same processor.

The one rule: a connection answers one request at a time, in the order they came.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

# Room for a request with a long context or a large span batch; beyond it the reply is 413.
MAX_BODY_BYTES = 64 * 1024 * 1024
# A client that pipelines more than this waits in its own socket.
_MAX_PIPELINED = 64

_REASONS = {
    200: b"OK", 202: b"Accepted", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required",
    403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
    413: b"Content Too Large", 415: b"Unsupported Media Type", 422: b"Unprocessable Content",
    429: b"Too Many Requests", 500: b"Internal Server Error", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout", 529: b"Overloaded",
}  # fmt: skip
_JSON = b"application/json"


@dataclass(slots=True)
class Request:
    """One received request; header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool


Handler = Callable[["Http1Connection", Request], None]


def reply_bytes(
    status: int, body: bytes, content_type: bytes = _JSON, headers: bytes = b"", *, keep_alive: bool = True
) -> bytes:
    """Returns a whole reply; `headers` are ready lines, each with its CRLF."""
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        status,
        _REASONS.get(status, b"Unknown"),
        content_type,
        len(body),
        headers,
        b"" if keep_alive else b"connection: close\r\n",
        body,
    )


def chunk_bytes(data: bytes) -> bytes:
    """Returns the data framed as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Http1Connection(asyncio.Protocol):
    """One client connection; hands each request to the handler, which answers now or later through this object.

    The handler ends every request with `reply`, with `finish` after its own `write`s, or with `cut`. A callback
    set in `on_disconnect` runs in the same moment as the loss of the connection is seen.
    """

    def __init__(self, handler: Handler, open_connections: "set[Http1Connection]") -> None:
        self._handler = handler
        self._open = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._busy = False
        self._draining = False
        self._refused = False
        self._keep_alive = True
        self.on_disconnect: Callable[[], None] | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start_message()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Joins the set of open connections."""
        self.transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever is still answering that the client has gone."""
        del exc
        self._open.discard(self)
        self._waiting.clear()
        self._refused = True
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parses what came; complete requests are handled from inside the parser's callbacks."""
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, b'{"error":{"message":"not HTTP/1.1","type":"invalid_request_error","code":"bad_http"}}')

    # httptools' side

    def on_message_begin(self) -> None:
        """Forgets the previous message."""
        self._start_message()

    def on_url(self, url: bytes) -> None:
        """Collects the target, which may come in pieces."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps one header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Lets a client that asked first send its body."""
        if b"expect" in self._headers:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collects the body up to the limit."""
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)
        elif not self._refused:
            message = b'{"error":{"message":"body over %d bytes","type":"invalid_request_error","code":"too_large"}}'
            self._refuse(413, message % MAX_BODY_BYTES)

    def on_message_complete(self) -> None:
        """Handles the request, or queues it behind the one being answered."""
        if self._refused:
            return
        path, _, query = self._url.partition(b"?")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method = self._parser.get_method().decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        request = Request(method, path.decode("latin-1"), query.decode("latin-1"), self._headers, body, keep_alive)
        if self._busy:
            self._waiting.append(request)
            if len(self._waiting) >= _MAX_PIPELINED:
                self.transport.pause_reading()
        else:
            self._handle(request)

    # the handler's side

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after the request being answered."""
        return self._keep_alive

    def write(self, data: bytes) -> None:
        """Sends bytes of the current reply."""
        self.transport.write(data)

    def reply(self, status: int, body: bytes, content_type: bytes = _JSON, headers: bytes = b"") -> None:
        """Sends a whole reply and ends the request."""
        self.transport.write(reply_bytes(status, body, content_type, headers, keep_alive=self._keep_alive))
        self.finish()

    def finish(self) -> None:
        """Ends the request being answered; the next one of this connection may begin."""
        self.on_disconnect = None
        self._busy = False
        if not self._keep_alive:
            self._refused = True
            self.transport.close()
        elif self._waiting and not self._draining:
            self._drain()

    def cut(self) -> None:
        """Sends what was written, then closes without a proper end of the reply."""
        self.on_disconnect = None
        self._refused = True
        self._waiting.clear()
        self.transport.close()

    def _handle(self, request: Request) -> None:
        self._busy = True
        self._keep_alive = request.keep_alive
        self._handler(self, request)

    def _drain(self) -> None:
        # A loop, not a recursion through finish(): a client may pipeline more requests than the stack is deep.
        self._draining = True
        while self._waiting and not self._busy:
            self._handle(self._waiting.popleft())
        self._draining = False
        if not self._refused:
            self.transport.resume_reading()

    def _refuse(self, status: int, body: bytes) -> None:
        self._refused = True
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()
        self.transport.write(reply_bytes(status, body, keep_alive=False))
        self.transport.close()

    def _start_message(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0


async def listen(
    handler: Handler, host: str, port: int, open_connections: set[Http1Connection]
) -> tuple[asyncio.Server, int]:
    """Listens on the running loop and returns the server and the port it got."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http1Connection(handler, open_connections), host, port, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


async def stop_listening(server: asyncio.Server, open_connections: set[Http1Connection]) -> None:
    """Closes the server and every connection, and returns when all of them are gone."""
    server.close()
    for connection in list(open_connections):
        connection.transport.abort()
    await asyncio.gather(*(connection.closed for connection in list(open_connections)))
    await server.wait_closed()
