"""POSTs with an Idempotency-Key over HTTP, but for those that submit tasks: any route's reply, kept and repeated.

One rule: a route knows nothing of keys; it runs once, and its reply is taken down on the way out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from collegium_runtime.platform import Platform

from collegium_gateway import asgi
from collegium_gateway.asgi import Headers, Receive, Scope, Send
from collegium_gateway.directory import Directory
from collegium_gateway.errors import ApiError
from collegium_gateway.idempotency import REPLAYED
from collegium_gateway.keyed_replies import KeyedReplies, Reply
from collegium_gateway.keyed_tasks import Asking

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
        defect: Exception | None = None
        try:
            principal = self._directory.keys.authenticate(asgi.header(scope, b"authorization"))
            body = await asgi.read_body(scope, receive, self._max_body_bytes)
            path: str = scope["path"]
            if query := scope["query_string"]:
                path = f"{path}?{query.decode('latin-1')}"

            async def work() -> Reply:
                nonlocal defect
                reply, defect = await _run(self._routes, scope, body, receive)
                return reply

            reply, replayed = await self._replies.answer(principal, Asking(key, "POST", path, body), work)
        except ApiError as error:
            await asgi.send_error(send, error)
            return
        headers = [*reply.headers, *([REPLAYED_HEADER] if replayed else [])]
        headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        if defect is not None:
            raise defect


async def _run(routes: AsgiApp, scope: Scope, body: bytes, receive: Receive) -> tuple[Reply, Exception | None]:
    """Runs the routes on a body that was read, and returns what they sent; a defect comes with its reply."""
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

    defect: Exception | None = None
    try:
        await routes(scope, receive_body, take_down)
    except Exception as error:  # the routes answer a defect and then raise it, for the server's log
        if not parts:
            raise
        defect = error
    return Reply(status, headers, b"".join(parts)), defect
