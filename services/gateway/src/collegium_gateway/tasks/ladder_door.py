"""``GET /v1/admin/tasks/{id}/ladder``: the journey of any tenant's task, for operators. No contents stand in it."""

from __future__ import annotations

from collegium_bus.errors import BusError
from collegium_bus.reading import task_events
from collegium_contracts.ids import TASK_ID
from collegium_contracts.ladder import ladder
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.errors import ApiError
from collegium_gateway.http.replies import json_reply


class LadderDoor:
    """What EVENTS holds of a task, over HTTP; whoever may ask is the admin guard's to say."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def routes(self) -> list[Route]:
        """The route of this door."""
        return [Route("/v1/admin/tasks/{id}/ladder", self._ladder, methods=["GET"])]

    async def _ladder(self, request: Request) -> Response:
        task_id: str = request.path_params["id"]
        try:
            # An id becomes a part of subjects.
            known = TASK_ID.match(task_id) is not None
            rungs = ladder(await task_events(self._platform.connection, task_id)) if known else []
        except BusError as error:
            text = f"the journey of task {task_id} cannot be read now; try again later"
            raise ApiError("broker_unavailable", text, retry_after_seconds=5) from error
        if not rungs:
            raise ApiError("not_found", f"EVENTS holds nothing of task {task_id[:80]}", param="id")
        return json_reply({"id": task_id, "ladder": rungs})
