"""The gate before every admin route: the permission that the table of roles asks for.

One rule: routes know nothing of roles; whatever lies under the admin prefix passes here, or cannot be served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.roles import ADMIN_PREFIX, Permission, permission_of

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(routes: Sequence[Route], directory: Directory) -> list[Route]:
    """Returns the routes, those of the admin door behind their permissions; raises LookupError."""
    return [_guard(route, directory) if route.path.startswith(ADMIN_PREFIX) else route for route in routes]


def _guard(route: Route, directory: Directory) -> Route:
    methods = sorted((route.methods or {"GET"}) - {"HEAD"})
    permissions: dict[str, Permission] = {method: permission_of(method, route.path) for method in methods}
    permissions["HEAD"] = permissions.get("GET", next(iter(permissions.values())))
    endpoint: Endpoint = route.endpoint

    async def pass_through(request: Request) -> Response:
        principal = directory.keys.authenticate(request.headers.get("authorization"))
        principal.need_permission(permissions[request.method])
        return await endpoint(request)

    return Route(route.path, pass_through, methods=methods)
