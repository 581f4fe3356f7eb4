"""What lies around the routes: no address with control characters gets in, and no defect costs a connection.

What cannot exist is not found where it is read, and refused where something would be done to it.

One rule: routes need not know of this, and none can be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Receive, Scope, Send

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

# Whatever refuses a key names it so.
_KEYS: Final = "/v1/admin/keys/"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# Questions and titles may have lines.
_CONTROL_IN_QUERY: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def sheltered(routes: Sequence[Route]) -> list[Route]:
    """Returns the routes, those with names in their paths behind a check of these."""
    return [_checked(route) if "{" in route.path else route for route in routes]


def _checked(route: Route) -> Route:
    endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint

    shown = {"id": "key_id"} if route.path.startswith(_KEYS) else {}

    async def pass_through(request: Request) -> Response:
        check_names(request.method, {shown.get(name, name): value for name, value in request.path_params.items()})
        return await endpoint(request)

    return Route(route.path, pass_through, methods=sorted((route.methods or {"GET"}) - {"HEAD"}))


def check_names(method: str, names: Mapping[str, str]) -> None:
    """Refuses control characters in what a path names; raises ApiError."""
    for name, value in names.items():
        if _CONTROL.search(value) is not None:
            code = "not_found" if method in ("GET", "HEAD") else "invalid_value"
            raise ApiError(code, f"{name} must not hold NUL or other control characters", param=name)


class Sheltered:
    """The routes behind a check of the query."""

    def __init__(self, routes: Asgi) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if (error := fault_of(scope)) is not None:
            await asgi.send_error(send, error)
            return
        ended = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal ended
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._routes(scope, receive, watched)
        except Exception:
            # The routes log and answer a defect, and then raise it; the server would close the connection for it.
            if not ended:
                raise


def fault_of(scope: Scope) -> ApiError | None:
    """Returns why a query is refused, none where it is not."""
    if scope["type"] != "http":
        return None
    query: bytes = scope.get("query_string", b"")
    # Without an escape there is nothing to find: a server takes no request line with control characters.
    if b"%" in query:
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if _CONTROL_IN_QUERY.search(name) is not None:
                return ApiError("invalid_value", "the query must not hold NUL or other control characters")
            if _CONTROL_IN_QUERY.search(value) is not None:
                return ApiError("invalid_value", f"{name} must not hold NUL or other control characters", param=name)
    return None
