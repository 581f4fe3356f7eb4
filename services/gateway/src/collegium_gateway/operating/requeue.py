"""Requeuing and discarding dead letters, and running a failed task again.

Each step may be repeated: what a letter asks for is published under an id or a subject of its own, and only then is the
letter removed. Whoever dies in between leaves a letter whose next requeue finds what stands. One rule: a letter leaves
only after what it asked for is stored, or because an operator gave it up.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Literal

import msgspec
import structlog
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.letters import Letter, LetterBox, LetterFilter
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import TaskDispatched, TaskRef, TaskSubmitted
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating.redrive import Impossible, Redrive, Republish, RunAnew, decide, plan_of, task_of
from collegium_gateway.readmodel.rows import TERMINAL
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.views import TaskView
from collegium_gateway.webhooks.store import WebhookStore, url_of

log = structlog.get_logger(__name__)

State = Literal["requeued", "discarded", "already_done", "not_found", "impossible"]
# Pages of letters that are looked through for the one that a failed task left.
RETRY_PAGES = 5


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became, or on a dry run would become, of one letter.

    ``to`` is the subject it went to; ``task`` the new task, and ``retry_of`` the one whose input it has.
    """

    id: int
    state: State
    dry_run: bool = False
    to: str = ""
    task: str = ""
    retry_of: str = ""
    reason: str = ""


class Requeue:
    """The operator's ways out for a dead letter."""

    def __init__(self, platform: Platform, tasks: Tasks, webhooks: WebhookStore) -> None:
        self._platform = platform
        self._tasks = tasks
        self._webhooks = webhooks
        self.box = LetterBox(platform.connection)

    async def requeue(self, principal: Principal, sequence: int, *, dry_run: bool) -> Outcome:
        """Requeues one letter and removes it; raises ApiError where the broker is away or a queue is full."""
        try:
            letter = await self.box.get(sequence)
            if letter is None:
                return await self._gone(sequence)
            redrive = await self._decide(letter)
            if not dry_run and not isinstance(redrive, Impossible):
                await self._carry_out(redrive)
                await self._remove(letter, principal, "requeued", redrive)
        except BusError as error:
            raise from_bus(error, f"dead letter {sequence}") from error
        return _outcome(sequence, redrive, dry_run=dry_run)

    async def discard(self, principal: Principal, sequence: int, *, dry_run: bool) -> Outcome:
        """Removes one letter for good."""
        try:
            letter = await self.box.get(sequence)
            if letter is None:
                return await self._gone(sequence)
            if not dry_run:
                await self._remove(letter, principal, "discarded", None)
        except BusError as error:
            raise from_bus(error, f"dead letter {sequence}") from error
        return Outcome(sequence, "discarded", dry_run=dry_run)

    async def retry(self, principal: Principal, task_id: str) -> tuple[TaskView, bool]:
        """Runs a failed task of the principal's tenant again; returns the new task and whether it was made now.

        Asked again it returns the same task. ApiError ``task_not_terminal`` where the task still runs, and
        ``input_not_kept`` where nothing holds what it was made from.
        """
        old = await self._tasks.get(principal, task_id)
        if old.state not in TERMINAL:
            raise ApiError(
                "task_not_terminal", f"task {task_id} is {old.state}; wait for it, or cancel it first", param="id"
            )
        tenant = principal.tenant
        standing = await self._tasks.find(tenant, ids.retry_id(tenant, task_id))
        if standing is not None:
            return standing, False
        try:
            letter = await self._letter_of(tenant, task_id, old.created_at)
            redrive = await self._decide(letter) if letter is not None else Impossible("no letter")
            if letter is None or not isinstance(redrive, RunAnew):
                raise ApiError(
                    "input_not_kept",
                    f"the input of task {task_id} ({old.state}) is not kept: only what failed tasks were made from is,"
                    " until an operator requeues or discards it; submit it again with POST /v1/tasks",
                    param="id",
                )
            view = await self._carry_out(redrive)
            await self._remove(letter, principal, "requeued", redrive)
        except BusError as error:
            raise from_bus(error, f"the retry of task {task_id}") from error
        assert view is not None, "a new task has a view"
        return view, True

    async def _letter_of(self, tenant: str, task_id: str, created_at: str) -> Letter | None:
        since = int(datetime.fromisoformat(created_at.replace("Z", "+00:00")).timestamp() * 1000)
        wanted = LetterFilter(tenant=tenant, cause="task_failed", task=task_id, since_ms=since)
        after: int | None = 0
        for _ in range(RETRY_PAGES):
            page = await self.box.page(wanted, after=after, limit=1)
            if page.letters:
                return page.letters[0]
            after = page.next_after
            if after is None:
                return None
        return None

    async def _gone(self, sequence: int) -> Outcome:
        if await self.box.ever_stood(sequence):
            return Outcome(sequence, "already_done", reason="it was requeued or discarded before")
        return Outcome(sequence, "not_found", reason="no letter was ever written under this id")

    async def _decide(self, letter: Letter) -> Redrive:
        content = letter.content
        original = content.payload if content is not None else b""
        if content is not None and (claim := content.headers.get(s.H_CLAIM)):
            try:
                original = await self._platform.claims.get(claim)
            except ContractError as error:
                return Impossible(f"the original was put aside and is gone: {error}")
        task = task_of(letter, original)
        settled = task is not None and await self._is_settled(task)
        plan = plan_of(letter, original)
        begun = await self._begun(plan) if plan is not None else None
        return decide(letter, original, settled=settled, now_ms=self._platform.now_ms(), begun=begun)

    async def _begun(self, task: TaskRef) -> TaskSubmitted | None:
        """Returns what a plan began with; none where its beginning is no longer kept, or cannot be read."""
        sequence = 0
        try:
            while stored := await self._platform.direct.following(
                s.EVENTS, s.task_changed(task.tenant, task.id), sequence
            ):
                sequence = stored.sequence
                message = codec.journey.decode(stored.payload)
                if isinstance(message, TaskDispatched) and message.submitted is not None:
                    return message.submitted
        except ContractError as error:
            log.warning("beginning of a plan cannot be read", task=task.id, error=str(error))
        return None

    async def _is_settled(self, task: TaskRef) -> bool:
        return await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None

    async def _carry_out(self, redrive: Republish | RunAnew) -> TaskView | None:
        if isinstance(redrive, RunAnew):
            return await self._run_anew(redrive)
        # What stands already was published by an earlier requeue that came this far and no further.
        with contextlib.suppress(AlreadyStandsError):
            await self._platform.publisher.publish(
                redrive.subject,
                redrive.payload,
                message_id=redrive.message_id,
                headers=redrive.headers,
                create_once=redrive.create_once,
            )
        return None

    async def _run_anew(self, redrive: RunAnew) -> TaskView:
        task = redrive.submitted.task
        # What stands under the new id was made by an earlier requeue, also beyond the duplicate window.
        standing = await self._tasks.find(task.tenant, task.id)
        if standing is not None:
            return standing
        callback_url = await self._callback_of(task, redrive.retry_of)
        again = msgspec.structs.replace(task, callback=callback_url is not None)
        hop = self._new_trace()
        with hop:
            submitted = msgspec.structs.replace(redrive.submitted, task=again)
            return await self._tasks.submit(submitted, hop, callback_url=callback_url)

    async def _callback_of(self, task: TaskRef, earlier_id: str) -> str | None:
        """Whoever was called about the earlier task is called about the new one."""
        if not task.callback:
            return None
        row = await self._webhooks.get(task.tenant, earlier_id)
        return url_of(self._platform.keyring, task.tenant, row.callback) if row is not None else None

    def _new_trace(self) -> Hop:
        return self._platform.tracing.root("gateway run again", "server", incoming_traceparent=None, attributes=None)

    async def _remove(self, letter: Letter, principal: Principal, how: State, redrive: Redrive | None) -> None:
        removed = await self.box.remove(letter.sequence)
        content = letter.content
        log.info(
            "dead letter done with",
            how=how,
            letter=letter.sequence,
            service=letter.service,
            letter_tenant=letter.tenant,
            cause=content.cause if content is not None else "",
            to=redrive.subject if isinstance(redrive, Republish) else "",
            task=redrive.submitted.task.id if isinstance(redrive, RunAnew) else "",
            key=principal.key_id,
            removed=removed,
        )


def _outcome(sequence: int, redrive: Redrive, *, dry_run: bool) -> Outcome:
    match redrive:
        case Impossible(reason=reason):
            return Outcome(sequence, "impossible", dry_run=dry_run, reason=reason)
        case RunAnew(submitted=submitted, retry_of=old):
            return Outcome(sequence, "requeued", dry_run=dry_run, task=submitted.task.id, retry_of=old)
        case Republish(subject=subject):
            return Outcome(sequence, "requeued", dry_run=dry_run, to=subject)
