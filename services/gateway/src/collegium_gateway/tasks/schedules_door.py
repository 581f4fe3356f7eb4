"""The endpoints of cron schedules: make, list, show, pause, resume, delete."""

from __future__ import annotations

from functools import cached_property

from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.gating import Gating
from collegium_gateway.admission.requests import decode_schedule, parse
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.cronschedules import CronSchedules

# More than a definition may have, so that the definition's own limit is the one that is told.
MAX_BODY_BYTES = 256 * 1024


class ScheduleDoor:
    """Cron schedules over HTTP."""

    def __init__(self, platform: Platform, directory: Directory, gating: Gating) -> None:
        self._platform = platform
        self._directory = directory
        self._gating = gating

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/schedules", self._create, methods=["POST"]),
            Route("/v1/schedules", self._list, methods=["GET"]),
            Route("/v1/schedules/{id}", self._get, methods=["GET"]),
            Route("/v1/schedules/{id}", self._delete, methods=["DELETE"]),
            Route("/v1/schedules/{id}/pause", self._pause, methods=["POST"]),
            Route("/v1/schedules/{id}/resume", self._resume, methods=["POST"]),
        ]

    @cached_property
    def _schedules(self) -> CronSchedules:
        return CronSchedules(self._platform, self._directory, self._gating)

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need("tasks")
        return principal

    async def _create(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(decode_schedule, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        made = await self._schedules.create(principal, body)
        return json_reply(made, 201, {"location": f"/v1/schedules/{made['id']}"})

    async def _list(self, request: Request) -> Response:
        return json_reply({"data": await self._schedules.page(self._principal(request))})

    async def _get(self, request: Request) -> Response:
        return json_reply(await self._schedules.get(self._principal(request), request.path_params["id"]))

    async def _pause(self, request: Request) -> Response:
        return json_reply(await self._schedules.pause(self._principal(request), request.path_params["id"]))

    async def _resume(self, request: Request) -> Response:
        return json_reply(await self._schedules.resume(self._principal(request), request.path_params["id"]))

    async def _delete(self, request: Request) -> Response:
        schedule_id: str = request.path_params["id"]
        await self._schedules.delete(self._principal(request), schedule_id)
        return json_reply({"id": schedule_id, "deleted": True})
