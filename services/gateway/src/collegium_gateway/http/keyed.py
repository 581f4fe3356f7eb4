"""POSTs with an Idempotency-Key over HTTP, but for those that submit tasks: any route's reply, kept and repeated.

One rule: a route knows nothing of keys; it runs once, and its reply is taken down on the way out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import structlog
from collegium_runtime.platform import Platform

from collegium_gateway.admission.idempotency import REPLAYED
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Headers, Receive, Scope, Send
from collegium_gateway.http.keyed_replies import KeyedReplies, Reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.tasks.keyed import Asking

log = structlog.get_logger(__name__)

REPLAYED_HEADER: Final = (REPLAYED.encode(), b"true")
# Each response has its own.
_NOT_REPEATED: Final = frozenset({b"x-request-id", b"traceparent", b"content-length", b"date"})

AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class KeyedPosts:
    """An ASGI layer over the routes."""

    def __init__(self, platform: Platform, directory: Directory, replies: KeyedReplies, routes: AsgiApp) -> None:
        self._directory = directory
        self._replies = replies
        self._routes = routes
        self._max_body_bytes = platform.settings.http.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        """Answers one POST."""
        try:
            reply, replayed = await self._answer(scope, receive, key)
        except ApiError as error:
            await asgi.send_error(send, error)
            return
        except Exception as error:  # the routes' own last line of defence lies below this layer
            log.error("keyed request failed", path=scope["path"], exc_info=error)
            await asgi.send_error(send, ApiError("internal_error", "the gateway failed on this request; see its log"))
            return
        headers = [*reply.headers, *([REPLAYED_HEADER] if replayed else [])]
        headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive, key: str) -> tuple[Reply, bool]:
        principal = self._directory.keys.authenticate(asgi.header(scope, b"authorization"))
        body = await asgi.read_body(scope, receive, self._max_body_bytes)
        path: str = scope["path"]
        if query := scope["query_string"]:
            path = f"{path}?{query.decode('latin-1')}"

        async def work() -> Reply:
            return await _run(self._routes, scope, body, receive)

        return await self._replies.answer(principal, Asking(key, "POST", path, body), work)


async def _run(routes: AsgiApp, scope: Scope, body: bytes, receive: Receive) -> Reply:
    """Runs the routes on a body that was read, and returns what they sent."""
    unread: list[bytes] = [body]
    status = 500
    headers: Headers = []
    parts: list[bytes] = []

    async def receive_body() -> MutableMapping[str, Any]:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    async def take_down(message: MutableMapping[str, Any]) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [(name, value) for name, value in message["headers"] if name not in _NOT_REPEATED]
        else:
            parts.append(message.get("body", b""))

    try:
        await routes(scope, receive_body, take_down)
    except Exception:  # the routes log and answer a defect, and then raise it for a server that would log it again
        if not parts:
            raise
    return Reply(status, headers, b"".join(parts))
