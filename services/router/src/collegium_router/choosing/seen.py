"""What is seen of questions whose tenants' policies want it: asked of context before a task is queued.

A question is looked at once, for a quarter of a second at most, and its task is queued whatever comes of it. One rule:
a task whose policy does not want it costs nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import BusError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.plans import SEVERAL
from collegium_contracts.policy_requests import FeaturesReply, FeaturesRequest
from collegium_learning.routing.features import Floats, unpack
from collegium_runtime.platform import Platform

from collegium_router.choosing.plan import AUTO
from collegium_router.queue.intake import Queued

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.25
# Questions that are looked at at a time; beyond it tasks are queued unseen.
AT_ONCE_MAX: Final = 64
# Longer prompts are not looked at: a question is one message of the broker, and an embedder reads only its beginning.
LOOK_BYTES_MAX: Final = 200_000


class Seen(NamedTuple):
    """A question's row, by which embedder, and the same sealed for keeping."""

    embedder: str
    row: Floats
    sealed: Envelope


class Sight:
    """Looks at questions; ``wants`` says whether a tenant's policy wants it, ``accept`` queues a task afterwards.

    ``given`` returns the task with the domain that its question is of.
    """

    def __init__(
        self,
        platform: Platform,
        wants: Callable[[str], bool],
        accept: Callable[[Queued], None],
        given: Callable[[TaskSubmitted, Seen], TaskSubmitted] = lambda submitted, _seen: submitted,
    ) -> None:
        self._platform = platform
        self._given = given
        self._wants = wants
        self._accept = accept
        self._seen: dict[str, Seen] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def of(self, task_id: str) -> Seen | None:
        """Returns what was seen of a task's question."""
        return self._seen.get(task_id)

    def forget(self, task_id: str) -> None:
        """Forgets a task that left the queue."""
        if self._seen:
            self._seen.pop(task_id, None)

    def looks(self, queued: Queued) -> bool:
        """Whether a message is looked at first, which queues it afterwards."""
        message = queued.message
        if (
            not isinstance(message, TaskSubmitted)
            or message.task.model != AUTO
            or message.task.kind != "chat"
            or message.task.plan in SEVERAL
            or message.prompt_bytes > LOOK_BYTES_MAX
            or len(self._looking) >= AT_ONCE_MAX
            or not self._wants(message.task.tenant)
        ):
            return False
        task = asyncio.create_task(self._look(queued, message), name="look")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)
        return True

    async def stop(self) -> None:
        """Looks no more; what was being looked at stays in INGRESS."""
        for task in list(self._looking):
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    async def _look(self, queued: Queued, submitted: TaskSubmitted) -> None:
        task = submitted.task
        try:
            reply = await ask(
                self._platform.connection,
                s.SVC_CONTEXT_FEATURES,
                FeaturesRequest(tenant=task.tenant, prompt=submitted.prompt),
                FeaturesReply,
                timeout_seconds=LOOK_SECONDS,
                traceparent=queued.traceparent,
            )
            row = unpack(reply.row)
            if row is not None:
                self._seen[task.id] = seen = Seen(reply.embedder, row, reply.sealed)
                queued.message = self._given(submitted, seen)
        except BusError as error:
            log.info("question not seen in time", task=task.id, error=str(error))
        except Exception as error:  # a task that was not queued would wait for ever
            log.error("question not seen", task=task.id, exc_info=error)
        self._accept(queued)
