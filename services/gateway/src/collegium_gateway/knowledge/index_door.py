"""How the index of all documents stands, for operators. One rule: figures over all tenants, and nothing of any one."""

from __future__ import annotations

from collegium_contracts import knowledge as k
from collegium_contracts import subjects as s
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.asking import ask_context
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.tasks.views import rfc3339


class IndexDoor:
    """The index over HTTP."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The route of this door."""
        return [Route("/v1/admin/search-index", self._generations, methods=["GET"])]

    async def _generations(self, request: Request) -> Response:
        self._directory.keys.authenticate(request.headers.get("authorization")).need("admin")
        reply = await ask_context(self._platform, s.SVC_KNOWLEDGE_GENERATIONS, k.GenerationsGet(), k.GenerationsReply)
        return json_reply({"data": [_view(one) for one in reply.generations]})


def _view(one: k.GenerationRow) -> dict[str, object]:
    return {
        "collection": one.collection,
        "model": one.model,
        "dimensions": one.dimensions,
        "state": one.state,
        "documents": {"done": one.done, "total": one.total},
        "began_at": rfc3339(one.began_at_ms),
    }
