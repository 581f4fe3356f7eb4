"""Plans that a client left open: what a task may become, and what it became. Pure.

The gateway says what a task may become when it holds the money for it, the router decides when it knows the question,
and from its dispatch on the task says what it is, so that nobody behind the router ever sees an open plan. One rule:
what a task may become is what its hold covers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.parts import Plan


def opened(submitted: TaskSubmitted, plans: Sequence[Plan], members: int) -> TaskSubmitted:
    """Returns a task whose plan the router may choose among one attempt and these; of a panel ``members`` at most."""
    task = msgspec.structs.replace(submitted.task, plan="auto", open_to=list(plans))
    return msgspec.structs.replace(submitted, task=task, panel_size=members)


def as_planned(submitted: TaskSubmitted, plan: Plan, reason: str = "") -> TaskSubmitted:
    """Returns a task of an open plan with the plan that it was given, and why; any other as it is."""
    if not submitted.task.open_to:
        return submitted
    task = msgspec.structs.replace(submitted.task, plan=plan, open_to=[], plan_reason=reason)
    return msgspec.structs.replace(submitted, task=task)
