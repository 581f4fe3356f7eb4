"""When a round of learning is due, and which step of it is next. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec
from collegium_contracts.evolution import CycleRow, CycleStep, StepState

Cause = Literal["interval", "demand"]
STEPS: Final = ("gaps", "students", "shadow", "promotion", "policy")
LINES_MAX: Final = 200
LINE_CHARS_MAX: Final = 500


def is_due(settled: int, settled_before: int, interval: int) -> bool:
    """Whether so much has settled since the last round that another is due.

    After a pause one round is due, however much was missed: it looks at everything.
    """
    return settled - settled_before >= interval


def begun(cycle_id: str, cause: Cause, by: str, queries: int, now_ms: int) -> CycleRow:
    """Returns a round with all its steps ahead."""
    steps = [CycleStep(name=name, state="pending") for name in STEPS]
    return CycleRow(
        id=cycle_id, state="running", cause=cause, started_at_ms=now_ms, by=by, queries=queries, steps=steps
    )


def next_step(cycle: CycleRow) -> str | None:
    """Returns the first step that was not done, none where all were."""
    return next((step.name for step in cycle.steps if step.state == "pending"), None)


def with_step(cycle: CycleRow, name: str, state: StepState, lines: list[str], now_ms: int) -> CycleRow:
    """Returns a round with what came of one step."""
    done = CycleStep(name=name, state=state, lines=[line[:LINE_CHARS_MAX] for line in lines[:LINES_MAX]], at_ms=now_ms)
    return msgspec.structs.replace(cycle, steps=[done if step.name == name else step for step in cycle.steps])


def ended(cycle: CycleRow, now_ms: int) -> CycleRow:
    """Returns a round that is over: failed where a step of it did."""
    failed = any(step.state == "failed" for step in cycle.steps)
    return msgspec.structs.replace(cycle, state="failed" if failed else "done", ended_at_ms=now_ms)


def brief(cycle: CycleRow) -> CycleRow:
    """Returns a round without the lines of its steps."""
    return msgspec.structs.replace(cycle, steps=[msgspec.structs.replace(step, lines=[]) for step in cycle.steps])


def names(line: str, tenant: str) -> bool:
    """Whether a line of a report is about a tenant: it begins with it, says for whom, or is of one of its models."""
    return re.search(rf"(?:^| for |^head\.){re.escape(tenant)}(?=[:/.])", line) is not None
