"""The tasks' read model: events folded into one row a task. Pure.

A task's state only moves forward (submitted, working, then one terminal state), so events may come late, twice or in
any order. One rule: the terminal message is kept whole; everything shown of a settled task is read from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from collegium_contracts.codec import encode
from collegium_contracts.messages import (
    AnswersReused,
    InputRequired,
    Message,
    Settled,
    TaskAccepted,
    TaskCanceled,
    TaskCompleted,
    TaskDispatched,
    TaskFailed,
    TaskRef,
)

State = Literal["submitted", "working", "input_required", "completed", "failed", "canceled", "rejected"]
STATES: tuple[State, ...] = ("submitted", "working", "input_required", "completed", "failed", "canceled", "rejected")
TERMINAL: frozenset[State] = frozenset(("completed", "failed", "canceled", "rejected"))
# A task may wait for people before it begins and before its answer leaves, so how far it is is more than its state.
ORDER: dict[State, int] = {state: (0, 2, 1, 4, 4, 4, 4)[index] for index, state in enumerate(STATES)}
WAITS_WITH_ANSWER = 3


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task of the read model. ``reference`` is its TaskRef and ``settled`` its terminal message, both msgpack.

    ``has_answer``: it waits for people with an answer in hand. ``trace_id``: of its journey, empty where unknown.
    """

    task_id: str
    tenant: str
    state: State
    created_at_ms: int
    settled_at_ms: int | None = None
    reference: bytes
    settled: bytes | None = None
    has_answer: bool = False
    trace_id: str = ""

    @property
    def progress(self) -> int:
        """How far the task is: a row is only replaced by one that is further on."""
        return WAITS_WITH_ANSWER if self.has_answer else ORDER[self.state]


def state_of(message: Message) -> State | None:
    """Returns the state that an event puts its task in; none for events that change nothing."""
    match message:
        case TaskAccepted():
            return "submitted"
        case TaskDispatched():
            return "working"
        case TaskCompleted():
            return "completed"
        case InputRequired():
            return "input_required"
        case TaskFailed(stop_reason="denied"):
            return "rejected"
        case TaskFailed():
            return "failed"
        case TaskCanceled():
            return "canceled"
        case _:
            return None


def fold(rows: dict[str, TaskRow], events: Iterable[tuple[Message, bytes, str]]) -> None:
    """Folds events (message, payload, trace) into ``rows``, one a task: the one furthest on."""
    for row in (row for event in events for row in rows_of(*event)):
        known = rows.get(row.task_id)
        if known is None or row.progress > known.progress:
            rows[row.task_id] = row


def rows_of(message: Message, payload: bytes, trace_id: str) -> Iterable[TaskRow]:
    """Returns the rows that one event makes: one, none, or one for each reused answer."""
    if isinstance(message, AnswersReused):
        # A gateway of before told no traces.
        traces = message.traces if len(message.traces) == len(message.answers) else [""] * len(message.answers)
        told = zip(message.answers, traces, strict=True)
        return [row for answer, trace in told if (row := row_of(answer, encode(answer), trace)) is not None]
    row = row_of(message, payload, trace_id)
    return () if row is None else (row,)


def row_of(message: Message, payload: bytes, trace_id: str = "") -> TaskRow | None:
    """Returns the row that one event makes."""
    state = state_of(message)
    if state is None:
        return None
    task: TaskRef = message.task  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    if task.probe is not None:
        # Nobody asked for it, so nobody is shown it.
        return None
    settled = isinstance(message, Settled)
    return TaskRow(
        task_id=task.id,
        tenant=task.tenant,
        state=state,
        created_at_ms=task.created_at_ms,
        settled_at_ms=message.settled_at_ms if settled else None,
        reference=encode(task),
        settled=payload if settled else None,
        has_answer=isinstance(message, InputRequired) and message.stage == "answer",
        trace_id=trace_id,
    )
