"""The HTTP door: every route but the hot ones, and the application that holds them all.

Routes are Starlette's; a chat or a task is handed on before its router, because routing and request objects cost a
tenth of a plain call and a fifth of a task. One rule: whatever fails, the client gets the error body of the contract.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from collegium_runtime.platform import Platform
from collegium_store import is_unstorable
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route

from collegium_gateway.admission.admission import is_open_to
from collegium_gateway.admission.idempotency import HEADER
from collegium_gateway.chat.door import ChatDoor
from collegium_gateway.errors import ApiError, unstorable
from collegium_gateway.http import asgi, openapi
from collegium_gateway.http.asgi import Receive, Scope, Send
from collegium_gateway.http.keyed import KeyedPosts
from collegium_gateway.http.keyed_replies import KeyedReplies
from collegium_gateway.http.replies import json_reply
from collegium_gateway.http.sheltered import Sheltered, sheltered
from collegium_gateway.identity.admin_guard import guarded
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.keywatch import ASKING
from collegium_gateway.knowledge.document_door import DocumentDoor
from collegium_gateway.knowledge.memories import Memories
from collegium_gateway.knowledge.memory_door import MemoryDoor
from collegium_gateway.operating.admin import AdminDoor
from collegium_gateway.operating.evolution_door import EvolutionDoor
from collegium_gateway.operating.ledger_door import LedgerDoor
from collegium_gateway.operating.policy_door import PolicyDoor
from collegium_gateway.operating.roster_door import RosterDoor
from collegium_gateway.tasks.door import TaskDoor
from collegium_gateway.tasks.submitting import SubmitDoor
from collegium_gateway.webhooks.door import WebhookDoor

log = structlog.get_logger(__name__)

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

CHAT_PATH = "/v1/chat/completions"
TASKS_PATH = "/v1/tasks"


class HttpDoor:
    """The gateway's ASGI application."""

    def __init__(
        self,
        platform: Platform,
        directory: Directory,
        chat: ChatDoor,
        submit: SubmitDoor,
        tasks: TaskDoor,
        admin: AdminDoor,
        webhooks: WebhookDoor,
        readiness: Callable[[], dict[str, bool]],
        replies: KeyedReplies,
        more_routes: Sequence[Route] = (),
        around: Callable[[Asgi], Asgi] | None = None,
        more_hot: Mapping[str, Asgi] = {},
    ) -> None:
        self._platform = platform
        self._directory = directory
        # The key of such a request belongs to the task that it submits, not to its reply.
        self._hot: dict[str, Asgi] = {CHAT_PATH: chat, TASKS_PATH: submit, **more_hot}
        self._readiness = readiness
        self._routes = Starlette(
            routes=guarded(
                sheltered(
                    [
                        *(Route(path, hot, methods=["POST"]) for path, hot in self._hot.items()),
                        Route("/v1/models", self._models),
                        *tasks.routes(),
                        *DocumentDoor(platform, directory).routes(),
                        *admin.routes(),
                        *LedgerDoor(platform, directory).routes(),
                        *EvolutionDoor(platform, directory).routes(),
                        *PolicyDoor(platform, directory).routes(),
                        *RosterDoor(platform, directory).routes(),
                        *MemoryDoor(directory, Memories(platform, directory)).routes(),
                        *webhooks.routes(),
                        *more_routes,
                        Route("/health/live", self._live),
                        Route("/health/ready", self._ready),
                        Route("/metrics", self._metrics),
                        Route("/openapi.json", self._openapi),
                        Route("/docs", self._docs),
                    ]
                ),
                directory,
            ),
            exception_handlers={
                ApiError: _api_error,
                HTTPException: _http_exception,
                Exception: _defect,
            },
        )
        shelter = Sheltered(self._routes)
        self._inner: Asgi = around(shelter) if around is not None else shelter
        self._keyed = KeyedPosts(platform, directory, replies, self._inner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection event."""
        if scope["type"] == "http":
            ASKING.set(scope)
            if self._directory.tokens is not None:
                try:
                    await self._directory.tokens.prepare(asgi.header(scope, b"authorization"))
                except ApiError as error:
                    await asgi.send_error(send, error, asgi.ids(scope))
                    return
            if scope["method"] == "POST":
                hot = self._hot.get(scope["path"])
                if hot is not None:
                    await _guarded(hot, scope, receive, send)
                    return
            send = asgi.with_ids(scope, send)
            if scope["method"] == "POST" and (key := asgi.header(scope, HEADER)) is not None:
                await self._keyed(scope, receive, send, key)
                return
        await self._inner(scope, receive, send)

    async def _models(self, request: Request) -> Response:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need("chat")
        data: list[dict[str, Any]] = [
            {
                "id": model.name,
                "object": "model",
                "created": 0,
                "owned_by": "collegium",
                "collegium": {
                    "kind": model.kind,
                    "rank": model.rank,
                    "domains": model.domains,
                    "capabilities": model.capabilities,
                    "context_tokens": model.context_tokens,
                    "max_output_tokens": model.max_output_tokens,
                },
            }
            for model in self._directory.models
            if model.enabled and is_open_to(model, principal)
        ]
        data.append({"id": "auto", "object": "model", "created": 0, "owned_by": "collegium"})
        return json_reply({"object": "list", "data": data})

    async def _live(self, _request: Request) -> Response:
        return json_reply({"status": "live", "service": "gateway"})

    async def _ready(self, _request: Request) -> Response:
        checks = {"broker": self._platform.connection.is_connected, **self._readiness()}
        ready = all(checks.values())
        return json_reply({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(self._platform.metrics.render(), media_type="text/plain; version=0.0.4")

    async def _openapi(self, _request: Request) -> Response:
        return json_reply(openapi.document())

    async def _docs(self, _request: Request) -> Response:
        return HTMLResponse(openapi.PAGE)


async def _guarded(door: Asgi, scope: Scope, receive: Receive, send: Send) -> None:
    started = False

    async def watched(message: Any) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await door(scope, receive, watched)
    except Exception as error:  # the last line of defence of the hot doors
        log.error("request failed", path=scope["path"], exc_info=error)
        if not started:
            await asgi.send_error(send, _internal(), asgi.ids(scope))


def _error_response(error: ApiError, more: Mapping[str, str] = {}) -> Response:
    headers = {name.decode(): value.decode() for name, value in asgi.error_headers(error)}
    return json_reply(asgi.error_body(error), error.kind.http_status, {**headers, **more})


def _allowed(request: Request) -> str:
    """Returns what may be done at a path: its methods may be several routes, of which the router names the first's."""
    routes: Sequence[Route] = request.app.routes
    found = (route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for methods in found for method in methods}))


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error_response(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refused = ApiError("method_not_allowed", f"{request.method} is not allowed on {request.url.path}")
        return _error_response(refused, {"allow": _allowed(request)})
    return _error_response(ApiError("not_found", f"there is nothing at {request.url.path}"))


async def _defect(request: Request, error: Exception) -> Response:
    if is_unstorable(error):
        return _error_response(unstorable())
    log.error("request failed", path=request.url.path, exc_info=error)
    return _error_response(_internal())


def _internal() -> ApiError:
    return ApiError("internal_error", "the gateway failed on this request; its log says why")
