"""What a plan needs from context: the turns of its conversation, and what memory holds for it.

Turns are part of what was asked, so a task waits for them. Memory is an aid: where context does not answer in time the
task goes on without it, and says so. Both are asked at the same time. One rule: a task that asks for neither costs
nothing here.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError, kind_of
from collegium_contracts.memory_paths import OFF
from collegium_contracts.memory_requests import NOTE_BYTES_MAX, RecallReply, RecallRequest
from collegium_contracts.messages import TaskRef, TaskSubmitted
from collegium_contracts.parts import MemoryUse
from collegium_contracts.requests import TurnsReply, TurnsRequest
from collegium_contracts.state import ModelRecord
from collegium_runtime.platform import Platform
from collegium_telemetry.hop import Hop

from collegium_router.choosing.plan import Planned, max_tokens
from collegium_router.roster.fleet_models import Models

log = structlog.get_logger(__name__)

TURNS_SECONDS = 3.0
RECALL_SECONDS = 1.5
# Below what a token of most texts has, so that what is chosen by it fits.
_BYTES_PER_TOKEN = 3
# An answer may take this share of a window at most where its bound would leave nothing for turns.
_ANSWER_SHARE = 2
_WITHOUT = RecallReply(use=MemoryUse(state="unavailable"))


class Added(NamedTuple):
    """What is added to a task's prompt."""

    turns: TurnsReply | None = None
    recalled: RecallReply | None = None

    @property
    def history(self) -> Envelope | None:
        """The turns that fit, sealed."""
        return self.turns.history if self.turns is not None else None

    @property
    def notes(self) -> list[Envelope]:
        """What else the model is told, sealed."""
        summary = self.turns.summary if self.turns is not None else None
        note = self.recalled.note if self.recalled is not None else None
        return [one for one in (summary, note) if one is not None]

    @property
    def bytes(self) -> int:
        """How much all of it is."""
        turns, recalled = self.turns, self.recalled
        added = turns.history_bytes + turns.summary_bytes if turns is not None else 0
        return added + (recalled.note_bytes if recalled is not None else 0)

    def task(self, task: TaskRef) -> TaskRef:
        """Returns the task with what was recalled for it."""
        if self.recalled is None:
            return task
        return msgspec.structs.replace(task, recalled=self.recalled.use)


NOTHING = Added()


def needs(task: TaskRef) -> bool:
    """Whether anything is to be looked up for a task."""
    return bool(task.conversation) or task.memory not in ("", OFF)


def window_bytes(model: ModelRecord, requested: int | None, prompt_bytes: int, note_bytes: int = 0) -> int:
    """Returns how many bytes of turns fit a model's window beside a prompt, notes and the answer; at least one.

    Notes may take half of what prompt and answer leave at most, or a small window would have no turns at all.
    """
    room = _room_bytes(model, requested, prompt_bytes)
    return max(1, room - min(note_bytes, room // 2))


def recall_bytes(model: ModelRecord, requested: int | None, prompt_bytes: int, *, has_turns: bool) -> int:
    """Returns how many bytes from memory fit a model's window beside a prompt and the answer; none where nothing does.

    Beside turns it is what half a window of turns and their summary leave.
    """
    room = max(0, _room_bytes(model, requested, prompt_bytes))
    return min(NOTE_BYTES_MAX, room * 3 // 8 if has_turns else room)


def _room_bytes(model: ModelRecord, requested: int | None, prompt_bytes: int) -> int:
    answer = min(max_tokens(requested, model), model.context_tokens // _ANSWER_SHARE)
    return (model.context_tokens - answer) * _BYTES_PER_TOKEN - prompt_bytes


class Lookups:
    """Asks context."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def of(
        self, submitted: TaskSubmitted, planned: Planned, models: Models, hop: Hop
    ) -> Added | TaskError | None:
        """Returns what is added; none where the turns are not to be had yet and the task may still wait for them.

        ``models`` are those that the plan was made from.
        """
        task = submitted.task
        if not task.conversation:
            return Added(recalled=await self._recall(submitted, planned, models, hop))
        if task.memory in ("", OFF):
            turns, recalled = await self._turns(submitted, planned, models, hop), None
        else:
            turns, recalled = await asyncio.gather(
                self._turns(submitted, planned, models, hop), self._recall(submitted, planned, models, hop)
            )
        return Added(turns, recalled) if isinstance(turns, TurnsReply) else turns

    async def _turns(
        self, submitted: TaskSubmitted, planned: Planned, models: Models, hop: Hop
    ) -> TurnsReply | TaskError | None:
        task = submitted.task
        notes = 0 if task.memory in ("", OFF) else NOTE_BYTES_MAX
        asked, prompt = submitted.sampling.max_tokens, submitted.prompt_bytes + planned.instruction_bytes
        windows = [window_bytes(models[one.model], asked, prompt, notes) for one in planned.attempts]
        question = TurnsRequest(
            tenant=task.tenant, conversation=task.conversation, max_bytes=min(windows), project=task.project
        )
        try:
            return await ask(
                self._platform.connection,
                s.SVC_CONTEXT_TURNS,
                question,
                TurnsReply,
                timeout_seconds=TURNS_SECONDS,
                traceparent=hop.traceparent,
            )
        except RequestRefusedError as error:
            if not kind_of(error.code).retryable:
                return TaskError(code=error.code, message=error.message, param=error.param)
            log.info("conversation not readable yet", task=task.id, error=str(error))
        except BusError as error:
            log.info("conversation not readable yet", task=task.id, error=str(error))
        return None

    async def _recall(self, submitted: TaskSubmitted, planned: Planned, models: Models, hop: Hop) -> RecallReply:
        task = submitted.task
        asked, has_turns = submitted.sampling.max_tokens, bool(task.conversation)
        prompt = submitted.prompt_bytes + planned.instruction_bytes
        question = RecallRequest(
            tenant=task.tenant,
            task=task.id,
            path=task.memory,
            prompt=submitted.prompt,
            # The client's own words come first: what memory adds fits beside them on every model of the plan.
            max_bytes=min(
                recall_bytes(models[one.model], asked, prompt, has_turns=has_turns) for one in planned.attempts
            ),
        )
        try:
            return await ask(
                self._platform.connection,
                s.SVC_CONTEXT_RECALL,
                question,
                RecallReply,
                timeout_seconds=RECALL_SECONDS,
                traceparent=hop.traceparent,
            )
        except BusError as error:
            log.warning("answered without memory", task=task.id, error=str(error))
            return _WITHOUT
