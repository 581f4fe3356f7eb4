"""Sums by the hour and by the day: what a booked batch adds to them. Pure.

Here: which rows were booked just now → what each sum changes by. Not here: SQL (sum_store), reports over sums (usage).
One rule: a row is in its sums exactly once, so that the sum of an hour equals the sum of its rows: a row that was told
of again adds nothing, and a call that was told of otherwise is taken out as it stood and put in as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import add
from typing import Final, NamedTuple

import msgspec

from collegium_billing.books.booking import AttemptRow, TaskRow

HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 86_400
HOUR_MS: Final = HOUR_SECONDS * 1000
DAY_MS: Final = DAY_SECONDS * 1000

# As the ledger writes it.
NO_MODEL: Final = "-"

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode
_encode_tags = msgspec.json.Encoder(order="sorted").encode


# What a sum is of: tenant, project, key_id, model, rank, plan, and tags as a JSON object as booking writes it. A plain
# tuple, because it is cut out of every row that is booked: task rows have it from 1 to 8, call rows from 3 to 10.
Group = tuple[str, ...]


class CallChanged(NamedTuple):
    """A call that was told of again and otherwise: what stands, what stood, and its time as it was told now."""

    group: Group
    cost_picos: int
    at_ms: int
    wasted: bool
    earlier_at_ms: int
    earlier_wasted: bool
    told_at_ms: int = 0


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
    cache_write_tokens: str
    reasoning_tokens: str


class Moved(NamedTuple):
    """By how much an hour's sums of calls are more than its ledger since a call was told of otherwise."""

    begins_at_ms: int
    tenant: str
    project: str
    key_id: str
    model: str
    cost_picos: str
    wasted_picos: str


_FIGURES = 10
_COST, _WASTED = 4, 5


class Changes:
    """What one batch changes the sums by."""

    def __init__(self) -> None:
        self._hours: dict[tuple[int, Group], list[int]] = {}
        self._costs: dict[str, int] = {}
        self._moved: dict[tuple[int, Group], list[int]] = {}

    def add_tasks(self, rows: Iterable[TaskRow]) -> None:
        """Adds tasks that were booked just now."""
        for row in rows:
            charge = int(row.charge_picos)
            figures = self._of(row.settled_at_ms, row[1:8])
            if charge > 0 or row.state == "completed":
                figures[0] += 1
            figures[1] += row.input_tokens
            figures[2] += row.cached_input_tokens
            figures[3] += row.output_tokens
            figures[6] += charge
            if row.reference_model or row.saved_picos != "0":
                figures[7] += saved_picos(row)
            figures[8] += row.cache_write_tokens
            figures[9] += row.reasoning_tokens

    def add_calls(self, rows: Iterable[AttemptRow]) -> None:
        """Adds calls that were booked just now."""
        for row in rows:
            picos = int(row.cost_picos)
            self._costs[row.model] = self._costs.get(row.model, 0) + picos
            self._add_call(row.at_ms, row[3:10], picos, row.wasted)

    def change_call(self, call: CallChanged) -> None:
        """Takes a call out as it stood, and puts it in as it stands."""
        group = (*call.group[:-1], _encode_tags(_decode_tags(call.group[-1])).decode())
        self._add_call(call.earlier_at_ms, group, -call.cost_picos, call.earlier_wasted)
        self._add_call(call.at_ms, group, call.cost_picos, call.wasted)
        picos = call.cost_picos
        self._move(call.earlier_at_ms, group, -picos, -picos if call.earlier_wasted else 0)
        self._move(call.at_ms, group, picos, picos if call.wasted else 0)
        if call.wasted and not call.earlier_wasted:
            # Its verdict is a transaction of the time at which it was told.
            self._move(call.told_at_ms, group, 0, -picos)

    def moved(self) -> list[Moved]:
        """Returns by how much hours' sums are more than the ledger from now on."""
        return [
            Moved._make((begins_at_ms, *group, str(cost), str(wasted)))
            for (begins_at_ms, group), (cost, wasted) in self._moved.items()
            if cost or wasted
        ]

    def costs(self) -> dict[str, int]:
        """Returns what was booked for the first time, in pico-dollars by model."""
        return self._costs

    def rows(self) -> list[SumRow]:
        """Returns what each sum changes by; those that do not change are left out."""
        found: list[SumRow] = []
        days: dict[tuple[int, Group], list[int]] = {}
        for key, figures in self._hours.items():
            if not any(figures):
                continue
            begins_at_ms, group = key
            found.append(SumRow(HOUR_SECONDS, begins_at_ms, *group, *map(str, figures)))
            day = (begins_at_ms - begins_at_ms % DAY_MS, group)
            standing = days.get(day)
            days[day] = figures if standing is None else list(map(add, standing, figures))
        found += [
            SumRow(DAY_SECONDS, begins_at_ms, *group, *map(str, figures))
            for (begins_at_ms, group), figures in days.items()
            if any(figures)
        ]
        return found

    def _of(self, at_ms: int, group: Group) -> list[int]:
        key = (at_ms - at_ms % HOUR_MS, group)
        figures = self._hours.get(key)
        if figures is None:
            figures = self._hours[key] = [0] * _FIGURES
        return figures

    def _move(self, at_ms: int, group: Group, cost: int, wasted: int) -> None:
        key = (at_ms - at_ms % HOUR_MS, (group[0], group[1], group[2], group[3] or NO_MODEL))
        standing = self._moved.setdefault(key, [0, 0])
        standing[0] += cost
        standing[1] += wasted

    def _add_call(self, at_ms: int, group: Group, picos: int, wasted: bool) -> None:
        figures = self._of(at_ms, group)
        figures[_COST] += picos
        if wasted:
            figures[_WASTED] += picos


def saved_picos(task: TaskRow) -> int:
    """Returns what a task saved: of a reused answer what its original was charged, of a routed one what routing saved.

    Routing saved the reference's charge less its own, which is below zero where it cost more.
    """
    routed = int(task.reference_picos) - int(task.charge_picos) if task.reference_model else 0
    return routed + int(task.saved_picos)
