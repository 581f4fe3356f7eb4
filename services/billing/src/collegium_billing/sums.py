"""Sums by the hour and by the day: what a booked batch adds to them. Pure.

Here: which rows were booked just now → what each sum changes by. Not here: SQL (sum_store), reports over sums (usage).
One rule: a row is in its sums exactly once, so that the sum of an hour equals the sum of its rows: a row that was told
of again adds nothing, and a call that was told of otherwise is taken out as it stood and put in as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from collegium_billing.booking import AttemptRow, Books, CallKey, TaskRow

HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 86_400
HOUR_MS: Final = HOUR_SECONDS * 1000
DAY_MS: Final = DAY_SECONDS * 1000

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode
_encode_tags = msgspec.json.Encoder(order="sorted").encode


class Group(NamedTuple):
    """What a sum is of; ``tags`` is a JSON object as booking writes it."""

    tenant: str
    project: str
    key_id: str
    model: str
    rank: str
    plan: str
    tags: str


class CallBooked(NamedTuple):
    """A call that a batch added or changed; of an added one only its key is told.

    ``earlier_at_ms`` is none for an added one; for a changed one the rest says what stands and what stood.
    """

    key: CallKey
    earlier_at_ms: int | None = None
    earlier_wasted: bool = False
    at_ms: int = 0
    wasted: bool = False
    group: Group | None = None
    cost_picos: int = 0


class SumRow(NamedTuple):
    """What one sum changes by. Numbers are decimal strings: they may exceed 63 bits."""

    seconds: int
    begins_at_ms: int
    tenant: str
    project: str
    key_id: str
    model: str
    rank: str
    plan: str
    tags: str
    requests: str
    input_tokens: str
    cached_input_tokens: str
    output_tokens: str
    cost_picos: str
    wasted_picos: str
    charge_picos: str
    saved_picos: str


_FIGURES = 8
_COST, _WASTED = 4, 5


class _Sums:
    """Figures by hour and group."""

    def __init__(self) -> None:
        self.hours: dict[tuple[int, Group], list[int]] = {}

    def of(self, at_ms: int, group: Group) -> list[int]:
        key = (at_ms - at_ms % HOUR_MS, group)
        figures = self.hours.get(key)
        if figures is None:
            figures = self.hours[key] = [0] * _FIGURES
        return figures

    def call(self, at_ms: int, group: Group, picos: int, wasted: bool) -> None:
        figures = self.of(at_ms, group)
        figures[_COST] += picos
        if wasted:
            figures[_WASTED] += picos

    def rows(self) -> list[SumRow]:
        days: dict[tuple[int, Group], list[int]] = {}
        for (begins_at_ms, group), figures in self.hours.items():
            key = (begins_at_ms - begins_at_ms % DAY_MS, group)
            days[key] = [mine + more for mine, more in zip(days.get(key, [0] * _FIGURES), figures, strict=True)]
        return [
            SumRow(seconds, begins_at_ms, *group, *map(str, figures))
            for seconds, sums in ((HOUR_SECONDS, self.hours), (DAY_SECONDS, days))
            for (begins_at_ms, group), figures in sums.items()
            if any(figures)
        ]


def changes(books: Books, new_tasks: Iterable[str], calls: Iterable[CallBooked]) -> list[SumRow]:
    """Returns what the sums change by; ``new_tasks`` are the ids of the batch's tasks that were added."""
    sums = _Sums()
    added = set(new_tasks)
    for task in books.tasks:
        if task.task_id in added:
            _add_task(sums, task)
    attempts = {CallKey(row.task_id, row.attempt, row.delivery): row for row in books.attempts}
    for call in calls:
        if call.earlier_at_ms is None:
            row = attempts[call.key]
            sums.call(row.at_ms, _group(row), int(row.cost_picos), row.wasted)
        elif call.group is not None:
            group = call.group._replace(tags=_encode_tags(_decode_tags(call.group.tags)).decode())
            sums.call(call.earlier_at_ms, group, -call.cost_picos, call.earlier_wasted)
            sums.call(call.at_ms, group, call.cost_picos, call.wasted)
    return sums.rows()


def costs(books: Books, calls: Iterable[CallBooked]) -> dict[str, int]:
    """Returns what was booked for the first time, in pico-dollars by model."""
    added = {call.key for call in calls if call.earlier_at_ms is None}
    found: dict[str, int] = {}
    for row in books.attempts:
        if (row.task_id, row.attempt, row.delivery) in added:
            found[row.model] = found.get(row.model, 0) + int(row.cost_picos)
    return found


def saved_picos(task: TaskRow) -> int:
    """Returns what a task's routing saved: the reference's charge less its own; below zero where it cost more."""
    return int(task.reference_picos) - int(task.charge_picos) if task.reference_model else 0


def _add_task(sums: _Sums, task: TaskRow) -> None:
    charge = int(task.charge_picos)
    added = (
        int(task.state == "completed" or charge > 0),
        task.input_tokens,
        task.cached_input_tokens,
        task.output_tokens,
        0,
        0,
        charge,
        saved_picos(task),
    )
    figures = sums.of(task.settled_at_ms, _group(task))
    for index, value in enumerate(added):
        figures[index] += value


def _group(row: TaskRow | AttemptRow) -> Group:
    return Group(row.tenant, row.project, row.key_id, row.model, row.rank, row.plan, row.tags)
