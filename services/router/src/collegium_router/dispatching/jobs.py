"""What a slot carries out: an entry's plan with the models that it was made from, or its end. Pure.

One rule: between plan and message the roster may change; what a message says of a model is what its plan saw.
"""

from __future__ import annotations

import msgspec

from collegium_router.choosing.plan import Planned
from collegium_router.dispatching.settlement import End
from collegium_router.limits.permits import AttemptKey
from collegium_router.queue.fairness import Entry
from collegium_router.queue.intake import Queued
from collegium_router.roster.fleet_models import Models

_NONE = Models()


class Job(msgspec.Struct, eq=False, frozen=True):
    """An entry's plan and its ``models``, or its end. An end that could not wait for a free slot takes none."""

    entry: Entry
    plan: Planned | None = None
    models: Models = _NONE
    end: End | None = None
    takes_slot: bool = True

    @property
    def queued(self) -> Queued:
        """The message of INGRESS that it is about."""
        return self.entry.item

    @property
    def keys(self) -> list[AttemptKey]:
        """The permits that its plan holds; none of an end."""
        return keys_of(self.queued, self.plan) if self.plan is not None else []


def keys_of(queued: Queued, planned: Planned) -> list[AttemptKey]:
    """Returns the keys of the attempts that a plan makes of an entry, in their order."""
    first = queued.first_try
    return [AttemptKey(first.task, attempt.number, first.try_number) for attempt in planned.attempts]
