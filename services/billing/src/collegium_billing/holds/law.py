"""The law of open holds, as values: which of them belong to no live task. Pure.

A hold may stand for a moment beyond its task, because its owner hears of a settlement by a stream; so one that is
younger than the grace breaks nothing. One rule: what cannot be told to be dead is alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import OpenHold

# Longer than an owner is taken over in, and than events are behind.
GRACE_MS: Final = 60_000

# settled: longer than the grace ago; live: queued, running, or settled just now; unknown: nobody knows of such a task.
Life = Literal["settled", "live", "unknown"]


def broken(holds: Iterable[OpenHold], lives: Mapping[str, Life], now_ms: int) -> list[str]:
    """Returns what is wrong with which hold; ``lives`` says what became of their tasks, live where it says nothing."""
    found: list[str] = []
    for hold in holds:
        life = lives.get(hold.task, "live")
        if hold.expires_at_ms < now_ms - GRACE_MS:
            wrong = "is over its time"
        elif life == "settled":
            wrong = "is of a task that settled"
        elif life == "unknown":
            wrong = "is of a task that is neither queued nor running nor settled"
        else:
            continue
        found.append(f"{hold.tenant}/{hold.task}: the hold of {picos_to_usd(hold.picos)} USD {wrong}")
    return found
