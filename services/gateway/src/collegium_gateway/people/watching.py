"""Looking whether a task waits for people: for those who ask about it, and those who wait for its end.

Only tasks that may ask people are looked up. One rule: what a task waits for is read from EVENTS, and never from the
read model, which may be behind.
"""

from __future__ import annotations

import msgspec
from collegium_bus.errors import BusError
from collegium_bus.pauses import waiting
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import TaskRef
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.people.views import waiting_view
from collegium_gateway.tasks.views import TaskView, open_view


class PeopleWatch:
    """Looks for one gateway."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def shown(self, task: TaskRef, view: TaskView) -> TaskView:
        """Returns the view of a task that has not settled, with what it waits for where it does."""
        if task.people is None:
            return view
        return await self._shown(task.tenant, view)

    async def only(self, tenant: str, task_id: str) -> TaskView | None:
        """Returns a task of which nothing stands but that it waits for people, or none."""
        try:
            found = await waiting(self._platform.direct, self._platform.claims, tenant, task_id)
        except (BusError, ContractError) as error:
            raise _unreadable(task_id) from error
        if found is None:
            return None
        return await self._shown(tenant, open_view(found.pause.task, "input_required"))

    async def waits(self, task: TaskRef) -> bool:
        """Whether a task waits for people now; raises BusError or ContractError where that cannot be told."""
        if task.people is None:
            return False
        found = await waiting(self._platform.direct, self._platform.claims, task.tenant, task.id)
        return found is not None and bool(found.open)

    async def _shown(self, tenant: str, view: TaskView) -> TaskView:
        try:
            found = await waiting(self._platform.direct, self._platform.claims, tenant, view.id)
            if found is None or not found.open:
                return _past(view)
            await self._platform.keyring.learn(tenant)
            shown = waiting_view(found, self._platform.keyring)
        except (BusError, ContractError) as error:
            raise _unreadable(view.id) from error
        return msgspec.structs.replace(view, state="input_required", input_required=shown)


def _past(view: TaskView) -> TaskView:
    """What was answered is under way, though the read model may not have heard of it."""
    return msgspec.structs.replace(view, state="working") if view.state == "input_required" else view


def _unreadable(task_id: str) -> ApiError:
    return ApiError("broker_unavailable", f"task {task_id} cannot be read now", retry_after_seconds=1)
