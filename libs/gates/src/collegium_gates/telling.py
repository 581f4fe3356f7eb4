"""What the audit trail is told of a decision. Pure.

One rule: of the text nothing is told, and of a rule its name, version and reason.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collegium_contracts.audit import Outcome
from collegium_contracts.messages import TaskRef

from collegium_gates.deciding import Decision, Result

ACTION_PREFIX: Final = "gate"
_OUTCOMES: Final[dict[Result, Outcome]] = {
    "blocked": "refused",
    "redacted": "done",
    "tokenised": "done",
    "flagged": "done",
    "asked": "done",
    "failed_closed": "refused",
    "failed_open": "failed",
}


class Told(NamedTuple):
    """An entry's fields."""

    action: str
    outcome: Outcome
    reason: str
    details: dict[str, str]


def told(decision: Decision, task: TaskRef) -> Told:
    """Returns what an entry says of a decision."""
    name, _, version = decision.reference.partition("@")
    details = {
        "rule": name,
        "version": version,
        "kind": decision.kind,
        "point": decision.point,
        "places": str(decision.count),
        "project": task.project,
    }
    return Told(f"{ACTION_PREFIX}.{decision.result}", _OUTCOMES[decision.result], decision.reason, details)


def refusal_text(decision: Decision) -> str:
    """Returns what a client is told of a decision that blocks."""
    what = {"request": "this request", "answer": "the answer", "tool": "a tool call of the answer"}.get(
        decision.point, "what was known besides"
    )
    if decision.result == "failed_closed":
        return f"gate {decision.rule} is required and could not be evaluated on {what}: {decision.reason}"
    return f"gate {decision.rule} does not let {what} pass: {decision.reason}"
