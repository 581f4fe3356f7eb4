"""The webhook endpoints: how a task's callback stands, and the key that signs a tenant's messages.

One rule: a tenant sees its own callbacks and keys, and nobody else's.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.views import rfc3339
from collegium_gateway.webhooks import values as webhooks
from collegium_gateway.webhooks.store import WebhookRow, WebhookStore, url_of
from collegium_gateway.webhooks.values import Secrets

# A task that was just accepted is in the read model some tenths of a second later.
WAIT_SECONDS = 3.0
POLL_SECONDS = 0.05
MAX_BODY_BYTES = 1024
# Keys are for whoever asked, and for no cache on the way.
_PRIVATE = {"cache-control": "no-store"}


class RotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/webhooks/secret/rotate``; the body may be left out. 0 ends the earlier keys at once."""

    grace_seconds: int = webhooks.DEFAULT_GRACE_SECONDS


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """A task's callback as ``GET /v1/tasks/{id}/webhook`` shows it."""

    url: str
    state: webhooks.WebhookState
    attempts: int
    last_status: int | None
    last_error: str | None
    next_try_at: str | None


_decode_rotate = msgspec.json.Decoder(RotateRequest)


class WebhookDoor:
    """The webhook endpoints over HTTP."""

    def __init__(self, platform: Platform, directory: Directory, store: WebhookStore) -> None:
        self._platform = platform
        self._directory = directory
        self._store = store

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/tasks/{id}/webhook", self._get, methods=["GET"]),
            Route("/v1/webhooks/secret", self._secret, methods=["GET"]),
            Route("/v1/webhooks/secret/rotate", self._rotate, methods=["POST"]),
        ]

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need("tasks")
        return principal

    async def _get(self, request: Request) -> Response:
        tenant = self._principal(request).tenant
        task_id: str = request.path_params["id"]
        row = await self._row(tenant, task_id)
        view = WebhookView(
            url=url_of(self._platform.keyring, tenant, row.callback),
            state=row.state,
            attempts=row.attempts,
            last_status=row.last_status,
            last_error=row.last_error,
            next_try_at=rfc3339(row.next_try_at_ms) if row.next_try_at_ms is not None else None,
        )
        return json_reply(view)

    async def _row(self, tenant: str, task_id: str) -> WebhookRow:
        """Returns a callback; waits a little for one that is told of and not yet in the read model."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        while (row := await self._store.get(tenant, task_id)) is None:
            if not await self._is_coming(tenant, task_id):
                raise ApiError("not_found", f"there is no task {task_id!r} with a callback", param="id")
            if loop.time() >= deadline:
                raise ApiError("not_ready", f"the callback of task {task_id} is not in the read model yet; ask again")
            await asyncio.sleep(POLL_SECONDS)
        return row

    async def _is_coming(self, tenant: str, task_id: str) -> bool:
        if ids.TASK_ID.match(task_id) is None:
            return False
        try:
            stored = await self._platform.direct.last(s.EVENTS, s.task_changed(tenant, task_id))
        except BusError as error:
            raise from_bus(error, f"the callback of task {task_id}") from error
        message: Any = codec.journey.decode(stored.payload) if stored is not None else None
        task = getattr(message, "task", None)
        return task is not None and task.callback

    async def _secret(self, request: Request) -> Response:
        tenant = self._principal(request).tenant
        key = os.urandom(webhooks.SECRET_BYTES)
        now = self._platform.now_ms()
        return _secret_reply(await self._store.secrets(tenant, key, now), now)

    async def _rotate(self, request: Request) -> Response:
        tenant = self._principal(request).tenant
        body = await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES)
        asked = parse(_decode_rotate, body or b"{}")
        if not 0 <= asked.grace_seconds <= webhooks.MAX_GRACE_SECONDS:
            raise ApiError(
                "invalid_value",
                f"grace_seconds must be between 0 and {webhooks.MAX_GRACE_SECONDS}",
                param="grace_seconds",
            )
        now = self._platform.now_ms()
        key = os.urandom(webhooks.SECRET_BYTES)
        return _secret_reply(await self._store.rotate(tenant, key, now, asked.grace_seconds), now)


def _secret_reply(secrets: Secrets, now_ms: int) -> Response:
    newest, *earlier = webhooks.in_force(secrets, now_ms)
    ends = [one.expires_at_ms for one in earlier if one.expires_at_ms is not None]
    body = {
        "secret": webhooks.shown(newest),
        "created_at": rfc3339(newest.made_at_ms),
        "earlier_valid_until": rfc3339(max(ends)) if ends else None,
    }
    return json_reply(body, headers=_PRIVATE)
