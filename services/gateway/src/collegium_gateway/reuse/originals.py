"""Outputs of reused answers: the rows of their tasks have none, those of their originals do.

One rule: an original is looked for within the tenant of the task that reused it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from collegium_contracts import codec
from collegium_contracts.messages import TaskCompleted

from collegium_gateway.readmodel.rows import TaskRow
from collegium_gateway.readmodel.store import TaskStore
from collegium_gateway.reuse.reusing import original_of, with_output

# Stands in every settled message of a reused answer, and makes most rows pass undecoded.
_MARK: Final = b"hit_"


async def with_outputs(store: TaskStore, tenant: str, rows: Sequence[TaskRow]) -> list[TaskRow]:
    """Returns a tenant's rows, those of reused answers with their original's output where it still stands."""
    wanted: dict[str, str] = {}
    for row in rows:
        if row.settled is not None and _MARK in row.settled:
            wanted[row.task_id] = original_of(codec.settled.decode(row.settled))
    if not wanted:
        return list(rows)
    originals = {row.task_id: row for row in await store.get_all(tenant, sorted(set(wanted.values())))}
    return [_filled(row, originals.get(wanted.get(row.task_id, ""))) for row in rows]


def _filled(row: TaskRow, original: TaskRow | None) -> TaskRow:
    if original is None or original.settled is None or row.settled is None:
        return row
    made = codec.settled.decode(original.settled)
    output = made.output if isinstance(made, TaskCompleted) else None
    return msgspec.structs.replace(row, settled=codec.encode(with_output(codec.settled.decode(row.settled), output)))
