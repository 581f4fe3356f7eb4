"""What the tenant pays of an attempt's calls, as its end tells it: the same whoever asks. Pure.

One rule: the charges of a plan's attempts sum to what its task is charged when it settles.
"""

from __future__ import annotations

from collegium_contracts.holds import Billed
from collegium_contracts.messages import AttemptEnded, AttemptUsage

_CANCELED = "canceled"


def is_charged(call: AttemptUsage) -> bool:
    """Whether the tenant pays for a call: it answered or the client ended it, and it is no waste."""
    return not call.wasted and (call.succeeded or call.error_code == _CANCELED)


def billed_of(ended: AttemptEnded) -> Billed:
    """Returns what one of several attempts adds to its task's charge; its tokens count when the task has settled."""
    calls = (call for call in (*ended.earlier, ended.call) if call.delivery)
    task = ended.task
    return Billed(
        picos=sum(call.usage.charge_usd_picos for call in calls if is_charged(call)),
        tokens=0,
        project=task.project,
        key_id=task.key_id,
    )
