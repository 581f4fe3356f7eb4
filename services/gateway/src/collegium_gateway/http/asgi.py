"""Small pieces of ASGI: reading a bounded body, answering JSON, answering errors.

One rule: every response carries ``x-request-id`` and ``traceparent``, and every error the body of the contract.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec
from collegium_telemetry import traceparent as w3c
from collegium_telemetry.hop import Hop
from collegium_telemetry.tracing import Tracing

from collegium_gateway.errors import ApiError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode
MAX_REQUEST_ID_CHARS = 128
# Told where whoever refused named no time of its own.
RETRY_AFTER_SECONDS = 1.0


def header(scope: Scope, name: bytes) -> str | None:
    """Returns a request header's value (names are lower case in ASGI), or none."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def request_id(scope: Scope) -> str:
    """Returns the client's ``x-request-id`` where it is printable and short, else a new one."""
    given = header(scope, b"x-request-id")
    if given and len(given) <= MAX_REQUEST_ID_CHARS and given.isascii() and given.isprintable():
        return given
    return os.urandom(16).hex()


def traceparent(scope: Scope) -> str:
    """Returns the client's ``traceparent`` where it is one, else that of a new trace that nobody records."""
    given = header(scope, b"traceparent")
    return given[: w3c.LENGTH] if given and w3c.parse(given) is not None else w3c.unsampled()


def ids(scope: Scope) -> Headers:
    """Returns the headers by which a request is found again that has no hop of its own."""
    return [
        (b"x-request-id", request_id(scope).encode("latin-1")),
        (b"traceparent", traceparent(scope).encode("latin-1")),
    ]


def begin(tracing: Tracing, scope: Scope, name: str) -> tuple[Hop, Headers]:
    """Begins a request's first hop, and returns it with the headers that every answer has."""
    hop = tracing.root(name, "server", incoming_traceparent=header(scope, b"traceparent"))
    return hop, [(b"x-request-id", request_id(scope).encode("latin-1")), (b"traceparent", hop.traceparent.encode())]


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Reads a request's body; raises ApiError ``body_too_large`` as soon as it is known to be."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body", False):
        message = await receive()
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError("body_too_large", f"the body is over {max_bytes} bytes; send less, or upload it as a document")


async def send_json(send: Send, status: int, body: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Sends a JSON response."""
    content = _encode(body)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(content)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


def error_body(error: ApiError) -> dict[str, Any]:
    """Returns the body that every error has."""
    return {
        "error": {"message": error.message, "type": error.kind.type, "param": error.param, "code": error.shown_code}
    }


def error_headers(error: ApiError) -> Headers:
    """Returns the headers that an error adds."""
    headers: Headers = []
    seconds = error.retry_after_seconds
    if seconds is None and error.kind.http_status in (429, 503):
        seconds = RETRY_AFTER_SECONDS
    if seconds is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds))))
    if error.kind.http_status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.task_id:
        headers.append((b"x-collegium-task-id", error.task_id.encode()))
    return headers


async def send_error(send: Send, error: ApiError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Sends an error response."""
    await send_json(send, error.kind.http_status, error_body(error), [*error_headers(error), *headers])


def with_ids(scope: Scope, send: Send) -> Send:
    """Returns a ``send`` that adds ``x-request-id`` and ``traceparent`` to a response that has none."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            names = {name for name, _ in headers}
            message["headers"] = headers + [one for one in ids(scope) if one[0] not in names]
        await send(message)

    return sending


async def start_events(send: Send, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Starts a response of server-sent events."""
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
                *headers,
            ],
        }
    )


async def send_event(send: Send, data: Any, *, event: str = "", event_id: int | None = None) -> None:
    """Sends one server-sent event with JSON data."""
    lines = b""
    if event:
        lines += b"event: %b\n" % event.encode()
    if event_id is not None:
        lines += b"id: %d\n" % event_id
    lines += b"data: %b\n\n" % (data if isinstance(data, bytes) else _encode(data))
    await send({"type": "http.response.body", "body": lines, "more_body": True})


async def end_events(send: Send) -> None:
    """Ends a response of server-sent events."""
    await send({"type": "http.response.body", "body": b"", "more_body": False})
