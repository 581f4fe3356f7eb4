"""Permits: which dispatched attempts have not ended, by tenant, model and pool. Pure.

A permit is taken when an attempt is dispatched and given back when its end, its retry or its task's terminal message
is stored. What WORK holds is the truth: a message leaves it when its attempt has ended, whoever was killed in between,
so permits are compared with it from time to time. One rule: the counters are the sums of the permits, never more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final, NamedTuple

# A permit that WORK knows nothing of is given back after this long: longer than a publish may take.
UNKNOWN_MS: Final = 20_000
# The same where the message is known to have been stored: then it was ended without a word, as a late copy is.
SENT_MS: Final = 1_000


class AttemptKey(NamedTuple):
    """Names one try of one attempt of a task."""

    task: str
    number: int
    try_number: int


class Permit(NamedTuple):
    """One dispatched attempt: whose it is and what it uses.

    ``taken_ms`` and ``sent_ms`` (Unix ms) are when the permit was taken and when its message was stored, 0 where that
    is not known. ``tokens`` is what it may use of its model's quota, 0 where the model has none.
    """

    key: AttemptKey
    tenant: str
    model: str
    pool: str
    taken_ms: int
    sent_ms: int = 0
    tokens: int = 0

    def should_stand(self, listed_ms: int) -> bool:
        """Whether the attempt's message must have been seen by a listing of WORK, if it was not ended."""
        if self.sent_ms:
            return self.sent_ms + SENT_MS < listed_ms
        return self.taken_ms + UNKNOWN_MS < listed_ms


class Permits:
    """The permits in use of one router."""

    def __init__(self) -> None:
        # Whose upstream limits a model uses, where those are not its own: a prompt student's base.
        self.bases: Mapping[str, str] = {}
        self._held: dict[str, dict[AttemptKey, Permit]] = {}
        self.in_use = 0
        self.by_tenant: Counter[str] = Counter()
        self.by_model: Counter[str] = Counter()
        self.by_pool: Counter[str] = Counter()
        self.tokens_by_model: Counter[str] = Counter()

    def take(self, permit: Permit) -> None:
        """Takes a permit; one that is taken already stays as it is."""
        of_task = self._held.setdefault(permit.key.task, {})
        if permit.key in of_task:
            return
        # Kept as it was counted: the roster may change before it is given back.
        permit = permit._replace(model=self.bases.get(permit.model, permit.model))
        of_task[permit.key] = permit
        self._count(permit, 1)

    def sent(self, key: AttemptKey, now_ms: int) -> None:
        """Notes that a permit's message is stored."""
        of_task = self._held.get(key.task)
        if of_task is not None and key in of_task:
            of_task[key] = of_task[key]._replace(sent_ms=now_ms)

    def give_back(self, task: str, number: int = 0, try_number: int = 0) -> bool:
        """Gives back the permits of a task, of one of its attempts, or of one try; false where there is none."""
        of_task = self._held.get(task)
        if of_task is None:
            return False
        gone = [
            key
            for key in of_task
            if (not number or key.number == number) and (not try_number or key.try_number == try_number)
        ]
        for key in gone:
            self._count(of_task.pop(key), -1)
        if not of_task:
            del self._held[task]
        return bool(gone)

    def holds(self, key: AttemptKey) -> bool:
        """Whether a try has its permit."""
        return key in self._held.get(key.task, ())

    def models_of(self, task: str) -> list[str]:
        """Returns under whose names upstream attempts of a task are out."""
        return [permit.model for permit in self._held.get(task, {}).values()]

    def reconcile(
        self,
        standing: Iterable[Permit],
        ours: Callable[[str], bool],
        listed_ms: int,
        *,
        seen_before: Container[AttemptKey] | None = None,
    ) -> tuple[int, int]:
        """Makes the permits agree with what stood in WORK at ``listed_ms``; returns how many were added and dropped.

        ``ours`` says whether a tenant's tasks are dispatched by this router. What was taken of late is left alone: its
        message may be on its way. An attempt that has ended stands a moment longer, until it is acknowledged, so one
        without a permit gets one only where it stood in the listing before too (``seen_before``; none: at once, as for
        a shard that was just taken).
        """
        stands = {permit.key: permit for permit in standing if ours(permit.tenant)}
        added = [
            permit
            for key, permit in stands.items()
            if not self.holds(key) and (seen_before is None or key in seen_before)
        ]
        for permit in added:
            self.take(permit)
        dropped = [
            permit
            for of_task in self._held.values()
            for key, permit in of_task.items()
            if not ours(permit.tenant) or (key not in stands and permit.should_stand(listed_ms))
        ]
        for permit in dropped:
            self.give_back(*permit.key)
        return len(added), len(dropped)

    def _count(self, permit: Permit, step: int) -> None:
        self.in_use += step
        if permit.tokens:
            self.tokens_by_model[permit.model] += step * permit.tokens
        for counter, name in (
            (self.by_tenant, permit.tenant),
            (self.by_model, permit.model),
            (self.by_pool, permit.pool),
        ):
            counter[name] += step
            if not counter[name]:
                del counter[name]
