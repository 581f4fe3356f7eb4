"""Where a task stands in the queue, as its shard's router says.

A tenant's queue length is asked for at most four times a second, so that submitting costs no question a task; one
task's position is asked for when somebody looks at it. One rule: an answer is shown with its age, and where no router
answers there is none.
"""

from __future__ import annotations

import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import shard_of
from collegium_contracts.requests import QueueReply, QueueRequest
from collegium_runtime.platform import Platform

from collegium_gateway.tasks.views import TaskView, queued_view

log = structlog.get_logger(__name__)

FRESH_MS = 250
ANSWER_SECONDS = 0.3
# Tenants whose answers are kept; beyond it the oldest go.
MAX_KEPT = 10_000


class QueueLook:
    """Asks the routers."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._kept: dict[str, tuple[QueueReply | None, int]] = {}

    async def of_tenant(self, tenant: str) -> QueueReply | None:
        """Returns how long a tenant's queue is, at most FRESH_MS old; none where no router answers."""
        now = self._platform.now_ms()
        kept = self._kept.get(tenant)
        if kept is not None and kept[1] + FRESH_MS > now:
            return kept[0]
        # Noted before the answer, so that those who come meanwhile do not all ask.
        self._kept[tenant] = (kept[0] if kept is not None else None, now)
        reply = await self._ask(QueueRequest(tenant=tenant))
        self._kept.pop(tenant, None)
        self._kept[tenant] = (reply, now)
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return reply

    async def of_task(self, tenant: str, task_id: str) -> QueueReply | None:
        """Returns where a task stands now; none where no router answers or the task is not queued."""
        reply = await self._ask(QueueRequest(tenant=tenant, task=task_id))
        return reply if reply is not None and (reply.position or reply.waits_until_ms) else None

    async def last(self, view: TaskView, tenant: str) -> TaskView:
        """Adds to a task that was just accepted its place behind what waits of its tenant."""
        reply = await self.of_tenant(tenant)
        if reply is None or not reply.queued:
            return view
        return queued_view(view, reply.queued + 1, self.age_ms(reply), reply.wait_seconds)

    async def placed(self, view: TaskView, tenant: str) -> TaskView:
        """Adds to an open task where it stands in the queue."""
        if view.state != "submitted":
            return view
        reply = await self.of_task(tenant, view.id)
        if reply is None or not reply.position:
            return view
        return queued_view(view, reply.position, self.age_ms(reply), reply.wait_seconds)

    def age_ms(self, reply: QueueReply) -> int:
        """How old an answer is."""
        return max(0, self._platform.now_ms() - reply.at_ms)

    async def _ask(self, request: QueueRequest) -> QueueReply | None:
        subject = s.queue_of_shard(shard_of(request.tenant))
        try:
            return await ask(self._platform.connection, subject, request, QueueReply, timeout_seconds=ANSWER_SECONDS)
        except (BusError, ContractError) as error:
            log.info("no answer about the queue", tenant=request.tenant, error=str(error))
            return None
