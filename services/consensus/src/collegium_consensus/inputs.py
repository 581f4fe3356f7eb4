"""What a plan was made from: for its later attempts, and for the letter that a failed one leaves.

The ends of attempts hold no prompt; the router's note that the plan began does, and is stored before any of them is
sent. One rule: the first such note counts, so that everybody goes by the same one.
"""

from __future__ import annotations

import structlog
from collegium_bus.dead import Original
from collegium_bus.errors import BusError
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import TaskDispatched, TaskRef
from collegium_runtime.platform import Platform

log = structlog.get_logger(__name__)


async def begun(platform: Platform, task: TaskRef) -> tuple[TaskDispatched, str] | None:
    """Returns the router's note that a plan began and its trace context; none where there is none.

    Raises BusError where it cannot be read now, ContractError where what stands cannot be read at all.
    """
    sequence = 0
    while stored := await platform.direct.after(s.EVENTS, sequence, s.task_changed(task.tenant, task.id)):
        sequence = stored.sequence
        claim = stored.headers.get(s.H_CLAIM)
        message = codec.journey.decode(await platform.claims.get(claim) if claim else stored.payload)
        if isinstance(message, TaskDispatched) and message.submitted is not None:
            return message, stored.headers.get(s.TRACEPARENT, "")
    return None


async def input_of(platform: Platform, task: TaskRef) -> Original | None:
    """Returns the TaskSubmitted that a task began with, or none where none is found.

    It never fails its caller, because the task is settled already.
    """
    try:
        found = await begun(platform, task)
    except (BusError, ContractError) as error:
        log.warning("input of a failed plan not found", task=task.id, error=str(error))
        return None
    if found is None or found[0].submitted is None:
        return None
    subject = s.task_submitted(task.priority, ids.shard_of(task.tenant), task.tenant)
    headers = {s.TRACEPARENT: found[1], s.H_TENANT: task.tenant}
    return Original(subject, codec.encode(found[0].submitted), headers)
