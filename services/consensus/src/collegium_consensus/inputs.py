"""What a panel was made from, for the letter that a failed one leaves.

The members' ends hold no prompt; the router's note that it dispatched the panel does. One rule: looking for an input
never fails its caller, because the task is settled already.
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


async def input_of(platform: Platform, task: TaskRef) -> Original | None:
    """Returns the TaskSubmitted that a task began with, as its dispatch repeats it, or none where none is found."""
    sequence = 0
    try:
        while stored := await platform.direct.after(s.EVENTS, sequence, s.task_changed(task.tenant, task.id)):
            sequence = stored.sequence
            claim = stored.headers.get(s.H_CLAIM)
            message = codec.journey.decode(await platform.claims.get(claim) if claim else stored.payload)
            if isinstance(message, TaskDispatched) and message.submitted is not None:
                subject = s.task_submitted(task.priority, ids.shard_of(task.tenant), task.tenant)
                headers = {s.TRACEPARENT: stored.headers.get(s.TRACEPARENT, ""), s.H_TENANT: task.tenant}
                return Original(subject, codec.encode(message.submitted), headers)
    except (BusError, ContractError) as error:
        log.warning("input of a failed panel not found", task=task.id, error=str(error))
    return None
