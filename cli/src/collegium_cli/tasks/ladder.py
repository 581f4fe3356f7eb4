"""The journey ladder as lines for people, and what a tenant's key can tell of one. Pure.

What its rungs say is the contracts' (ladder). One rule: what is not known is left empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from collegium_contracts.ladder import Rung, rung_of

# The first columns hold numbers.
_NUMBERS = 2
_ENDS = {"completed": "TaskCompleted", "failed": "TaskFailed", "canceled": "TaskCanceled"}


def of_task(task: Mapping[str, Any]) -> list[Rung]:
    """Returns a short ladder of what ``GET /v1/tasks/{id}`` shows: begun, its finished calls, settled."""
    about: Mapping[str, Any] = task["collegium"] or {}
    rungs = [rung_of("TaskSubmitted", 0)]
    for attempt in task["attempts"]:
        usage = attempt["usage"]
        ended = "answered" if attempt["succeeded"] else attempt["error"] or "failed"
        rungs.append(
            msgspec.structs.replace(
                rung_of("AttemptStarted", None),
                attempt=attempt["number"],
                model=attempt["model"],
                rank=attempt["rank"],
                cost_usd=usage["cost_usd"],
                verdict="discarded" if attempt["wasted"] and attempt["succeeded"] else ended,
                says=f"{attempt['duration_ms']} ms, {_tokens(usage)}",
            )
        )
    if (name := _ENDS.get(task["state"])) is not None:
        taken = datetime.fromisoformat(task["settled_at"]) - datetime.fromisoformat(task["created_at"])
        confidence = about.get("confidence")
        told = [f"plan {about.get('plan', '')}", *([f"confidence {confidence:.0%}"] if confidence is not None else [])]
        rungs.append(
            msgspec.structs.replace(
                rung_of(name, max(0, round(taken.total_seconds() * 1000))),
                model=about.get("model", ""),
                rank=about.get("rank", ""),
                cost_usd=about.get("cost_usd", ""),
                verdict=task["stop_reason"] or "",
                says=", ".join(told),
            )
        )
    return rungs


def _tokens(usage: Mapping[str, Any]) -> str:
    return f"{usage['input_tokens']}+{usage['output_tokens']} tokens"


def table(rungs: Sequence[Rung]) -> str:
    """Returns the ladder as lines for people, in columns as wide as what stands in them."""
    head = ("hop", "age ms", "message", "from → to", "attempt", "model", "rank", "cost USD", "verdict", "says")
    rows = [head, *(_cells(rung) for rung in rungs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join("  ".join(map(_padded, row, widths, range(len(row)))).rstrip() for row in rows)


def _cells(rung: Rung) -> tuple[str, ...]:
    attempt = str(rung.attempt) if rung.attempt else ""
    about = (rung.message, rung.way, attempt, rung.model, rung.rank, rung.cost_usd, rung.verdict, rung.says)
    return (str(rung.hop), "" if rung.age_ms is None else str(rung.age_ms), *about)


def _padded(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column < _NUMBERS else cell.ljust(width)
