"""Which line of its tenant's queue a message of INGRESS stands in, and since when.

One rule: what goes on with a task that runs already keeps that task's place, before whatever its tenant asked later.
"""

from __future__ import annotations

from collegium_contracts.messages import TaskRef

from collegium_router.limits.resources import pool_resource
from collegium_router.queue.fairness import Route
from collegium_router.queue.intake import Queued


def listens(task: TaskRef) -> bool:
    """Whether a client waits for the task's answer."""
    return bool(task.reply) and task.surface != "tasks"


def route_of(queued: Queued, *, is_limited: bool) -> Route:
    """Returns an entry's line: what it can be answered by, and what else must not stand behind each other."""
    task = queued.task
    route: Route = (task.model, task.domain)
    if is_limited and listens(task):
        # Who waits for a quota to renew must not hold up those who are told of it.
        route = (*route, "listens")
    if queued.goes_on:
        route = (*route, "goes on")
    if task.pool:
        route = (*route, pool_resource(task.pool))
    return route


def arrived_ms(queued: Queued, now_ms: int) -> int:
    """Returns since when an entry waits, as the queue sees it."""
    return queued.task.created_at_ms if queued.goes_on else now_ms
