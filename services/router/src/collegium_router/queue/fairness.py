"""The queue of one router: who is next, fairly. Pure.

Between tenants: start-time fair queueing (Goyal, Vin and Cheng, 1996), every entry costing one. A tenant's next start
is its last one plus the inverse of its weight, and the smallest start goes first; virtual time is the start that was
served last. Who comes back after a pause starts at virtual time, ahead of whoever floods, and who was kept back
remembers one turn at most. Shares are those of deficit round robin; its turns of as many entries as the weight says are
not, and they are what a tenant with little to do would wait for.

Within a tenant: priorities by stride scheduling (Waldspurger, 1995): each priority moves ahead by the inverse of its
rate, which is its weight, grown by how long its oldest entry has waited, so that nothing starves. Entries of one
priority are kept in lines by route (what they can be answered by), so that one busy model holds up its own line only.

One rule: nothing here knows of models, permits or messages; a ``judge`` says whether an entry can go now.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from collegium_contracts.parts import Priority

PRIORITY_WEIGHTS: Final[dict[Priority, int]] = {"high": 16, "normal": 4, "low": 1}
# After this long a waiting entry's priority has doubled its rate, after twice as long tripled it.
AGEING_MS: Final = 10_000
DEADLINE_STEP_MS: Final = 100
# Tenants looked at for one entry: where so many are kept back, the next look is soon enough.
MAX_VISITS: Final = 512
MAX_PAUSES: Final = 1_024

D = TypeVar("D")
# What an entry can be answered by: the model that was asked for, the domain, and what else tells lines apart.
Route = tuple[str, ...]


class Entry:
    """One thing in the queue. ``key`` is unique; times are Unix ms; ``item`` is whatever the owner keeps with it."""

    __slots__ = (
        "arrived_ms",
        "deadline_ms",
        "gone",
        "item",
        "key",
        "not_before_ms",
        "priority",
        "route",
        "tenant",
        "weight",
    )

    def __init__(
        self,
        key: str,
        tenant: str,
        item: Any,
        *,
        arrived_ms: int,
        deadline_ms: int,
        weight: int = 1,
        priority: Priority = "normal",
        route: Route = ("", ""),
        not_before_ms: int = 0,
    ) -> None:
        self.key = key
        self.tenant = tenant
        self.item = item
        self.arrived_ms = arrived_ms
        self.deadline_ms = deadline_ms
        self.weight = max(1, weight)
        self.priority: Priority = priority
        self.route = route
        self.not_before_ms = not_before_ms
        self.gone = False

    def held_until(self, not_before_ms: int) -> Entry:
        """Returns the entry as it is put back, to wait until a time."""
        return Entry(
            self.key,
            self.tenant,
            self.item,
            arrived_ms=self.arrived_ms,
            deadline_ms=self.deadline_ms,
            weight=self.weight,
            priority=self.priority,
            route=self.route,
            not_before_ms=not_before_ms,
        )


class Standing(NamedTuple):
    """Where an entry stands: ``position`` from 1 among what is ready, or 0 with the time until which it is held."""

    position: int
    waits_until_ms: int = 0


class _Tenant:
    """One tenant's lines."""

    __slots__ = ("count", "lines", "passed", "start", "weight")

    def __init__(self, weight: int, start: float) -> None:
        self.weight = weight
        self.start = start
        self.count = 0
        self.lines: dict[tuple[Priority, Route], deque[Entry]] = {}
        self.passed: dict[Priority, float] = {}

    def add(self, entry: Entry) -> None:
        self.weight = entry.weight
        line = self.lines.get((entry.priority, entry.route))
        if line is None:
            line = self.lines[(entry.priority, entry.route)] = deque()
            if entry.priority not in self.passed:
                # A priority that was idle begins where the others are, without credit for the time it was not there.
                self.passed[entry.priority] = min(self.passed.values(), default=0.0)
        line.append(entry)
        self.count += 1

    def heads(self) -> list[Entry]:
        """The oldest entry of each line, in the order in which they are to be tried."""
        found: list[Entry] = []
        for key, line in list(self.lines.items()):
            while line and line[0].gone:
                line.popleft()
            if line:
                found.append(line[0])
            else:
                self._drop(key)
        if len(found) > 1:
            found.sort(key=lambda entry: (self.passed[entry.priority], entry.arrived_ms))
        return found

    def served(self, entry: Entry, now_ms: int) -> None:
        rate = PRIORITY_WEIGHTS[entry.priority] * (1 + max(0, now_ms - entry.arrived_ms) / AGEING_MS)
        self.passed[entry.priority] += 1 / rate
        key = (entry.priority, entry.route)
        line = self.lines[key]
        line.popleft()
        if not line:
            self._drop(key)

    def _drop(self, key: tuple[Priority, Route]) -> None:
        del self.lines[key]
        if all(priority != key[0] for priority, _ in self.lines):
            del self.passed[key[0]]


class FairQueue(Generic[D]):
    """Entries by tenant, priority and route; ``take`` gives the next that a judge lets go."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._tenants: dict[str, _Tenant] = {}
        # Tenants by their next start; each tenant with entries stands here once.
        self._order: list[tuple[float, int, str]] = []
        self._ticks = itertools.count()
        self._virtual = 0.0
        # Where tenants that ran empty go on, as long as that lies ahead of virtual time.
        self._pauses: dict[str, float] = {}
        self._routes: Counter[Route] = Counter()
        self._held: list[tuple[int, str, Entry]] = []
        # Keys by the step in which their deadline falls, and a heap of the steps.
        self._deadlines: dict[int, set[str]] = {}
        self._steps: list[int] = []
        self._stepped: set[int] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def ready_of(self, tenant: str) -> int:
        """How many entries of a tenant could go, were there room."""
        queue = self._tenants.get(tenant)
        return queue.count if queue is not None else 0

    @property
    def tenants(self) -> int:
        """How many tenants have something ready."""
        return len(self._tenants)

    def ready_by_route(self) -> Mapping[Route, int]:
        """How many entries could go by their route, were there room."""
        return self._routes

    def push(self, entry: Entry, now_ms: int) -> bool:
        """Adds an entry; false where one with its key is there."""
        if entry.key in self._entries:
            return False
        self._entries[entry.key] = entry
        step = entry.deadline_ms // DEADLINE_STEP_MS + 1
        if step not in self._deadlines:
            self._deadlines[step] = set()
            if step not in self._stepped:
                self._stepped.add(step)
                heapq.heappush(self._steps, step)
        self._deadlines[step].add(entry.key)
        self._place(entry, now_ms)
        return True

    def remove(self, key: str) -> Entry | None:
        """Takes an entry out, whatever it waits for."""
        entry = self._forget(key)
        if entry is not None:
            self._leave_line(entry)
        return entry

    def take(self, now_ms: int, judge: Callable[[Entry], D | None]) -> tuple[Entry, D] | None:
        """Takes the next entry that the judge lets go, with what the judge said; none where none can go now."""
        self._release_held(now_ms)
        skipped: list[tuple[float, int, str]] = []
        try:
            for _ in range(min(len(self._order), MAX_VISITS)):
                turn = heapq.heappop(self._order)
                name = turn[2]
                tenant = self._tenants[name]
                found = self._pick(tenant, now_ms, judge) if tenant.count else None
                if found is not None:
                    self._virtual = max(self._virtual, tenant.start)
                    step = 1 / tenant.weight
                    tenant.start = max(tenant.start, self._virtual - step) + step
                if tenant.count == 0:
                    self._pause(name, tenant)
                elif found is not None:
                    heapq.heappush(self._order, (tenant.start, next(self._ticks), name))
                else:
                    skipped.append(turn)
                if found is not None:
                    return found
            return None
        finally:
            for turn in skipped:
                heapq.heappush(self._order, turn)

    def _pick(self, tenant: _Tenant, now_ms: int, judge: Callable[[Entry], D | None]) -> tuple[Entry, D] | None:
        for entry in tenant.heads():
            decision = judge(entry)
            if decision is None or entry.gone:
                continue
            tenant.served(entry, now_ms)
            tenant.count -= 1
            self._leave_route(entry)
            entry.gone = True
            self._forget(entry.key)
            return entry, decision
        return None

    def _pause(self, name: str, tenant: _Tenant) -> None:
        del self._tenants[name]
        if tenant.start > self._virtual:
            self._pauses[name] = tenant.start
        if len(self._pauses) > MAX_PAUSES:
            self._pauses = {name: start for name, start in self._pauses.items() if start > self._virtual}

    def expired(self, now_ms: int) -> list[Entry]:
        """Takes out and returns everything whose deadline has passed, at most DEADLINE_STEP_MS late."""
        found: list[Entry] = []
        while self._steps and self._steps[0] * DEADLINE_STEP_MS <= now_ms:
            number = heapq.heappop(self._steps)
            self._stepped.discard(number)
            for key in list(self._deadlines.get(number, ())):
                if (entry := self.remove(key)) is not None:
                    found.append(entry)
        return found

    def all_of(self, wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Returns every entry that is wanted; looks at all of them."""
        return [entry for entry in self._entries.values() if wanted(entry)]

    def next_release_ms(self) -> int | None:
        """When the next held entry becomes ready; none where none is held."""
        while self._held and self._held[0][2].gone:
            heapq.heappop(self._held)
        return self._held[0][0] if self._held else None

    def standing(self, key: str, now_ms: int) -> Standing | None:
        """Returns where an entry stands, or none where it is not here.

        The position counts what would go first if nothing more came: of its own tenant what is ahead of it, and of
        every other tenant as many as start before it.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        tenant = self._tenants.get(entry.tenant)
        if entry.not_before_ms > now_ms or tenant is None:
            return Standing(0, entry.not_before_ms)
        ahead = self._ahead_in_tenant(tenant, entry)
        start = tenant.start + ahead / tenant.weight
        others = sum(
            min(other.count, max(0, math.ceil((start - other.start) * other.weight)))
            for name, other in self._tenants.items()
            if name != entry.tenant
        )
        return Standing(1 + ahead + others)

    def _ahead_in_tenant(self, tenant: _Tenant, entry: Entry) -> int:
        line = tenant.lines.get((entry.priority, entry.route), deque())
        index = 0
        for other in line:
            if other is entry:
                break
            index += not other.gone
        weights = {priority: PRIORITY_WEIGHTS[priority] for priority, _ in tenant.lines}
        share = weights.get(entry.priority, 1) / (sum(weights.values()) or 1)
        return min(tenant.count - 1, int((index + 1) / share) - 1)

    def _place(self, entry: Entry, now_ms: int) -> None:
        if entry.not_before_ms > now_ms:
            heapq.heappush(self._held, (entry.not_before_ms, entry.key, entry))
            return
        tenant = self._tenants.get(entry.tenant)
        if tenant is None:
            start = max(self._virtual, self._pauses.pop(entry.tenant, 0.0))
            tenant = self._tenants[entry.tenant] = _Tenant(entry.weight, start)
            heapq.heappush(self._order, (start, next(self._ticks), entry.tenant))
        tenant.add(entry)
        self._routes[entry.route] += 1

    def _release_held(self, now_ms: int) -> None:
        while self._held and self._held[0][0] <= now_ms:
            _, key, entry = heapq.heappop(self._held)
            if self._entries.get(key) is entry and not entry.gone:
                entry.not_before_ms = 0
                self._place(entry, now_ms)

    def _forget(self, key: str) -> Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            number = entry.deadline_ms // DEADLINE_STEP_MS + 1
            step = self._deadlines.get(number)
            if step is not None:
                step.discard(key)
                if not step:
                    # A set keeps the size that it once had, and an hour's deadlines are thousands of steps.
                    del self._deadlines[number]
        return entry

    def _leave_line(self, entry: Entry) -> None:
        if entry.gone:
            return
        entry.gone = True
        tenant = self._tenants.get(entry.tenant)
        line = tenant.lines.get((entry.priority, entry.route)) if tenant is not None else None
        if tenant is not None and line is not None and entry.not_before_ms == 0:
            tenant.count -= 1
            self._leave_route(entry)

    def _leave_route(self, entry: Entry) -> None:
        self._routes[entry.route] -= 1
        if not self._routes[entry.route]:
            del self._routes[entry.route]
