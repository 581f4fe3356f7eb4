"""Dispatching: the queue's next entry, its plan, its permits, and the messages that carry it out.

``pump`` runs after everything that may let an entry go (an arrival, a permit given back, a bigger slice): as long as a
slot is free it takes the next entry that the judge lets go, and hands it to the slot. Slots publish: attempts to WORK,
ends to EVENTS. Both are idempotent, so a takeover may repeat them. One rule: a task leaves INGRESS only after its
attempts stand in WORK or its end stands in EVENTS.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping

import structlog
from collegium_bus.errors import BusError, QueueFullError
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import AttemptRequested, StopReason
from collegium_contracts.routing import Route
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_settings.settings import TierSettings
from collegium_telemetry.hop import Hop

from collegium_router.choosing.lookups import NOTHING, Lookups, needs
from collegium_router.choosing.members import decide
from collegium_router.choosing.opening import given
from collegium_router.choosing.plan import Busy, Fleet, Planned, Wait
from collegium_router.choosing.policies import Policies
from collegium_router.choosing.seen import Sight
from collegium_router.choosing.trials import Trials
from collegium_router.dispatching.jobs import Job, keys_of
from collegium_router.dispatching.probes import Probes
from collegium_router.dispatching.sending import Sender
from collegium_router.dispatching.settlement import canceled, expired, failed
from collegium_router.dispatching.telemetry import said_of
from collegium_router.dispatching.waiting import ends_waiting, unavailable
from collegium_router.limits.permits import Permit, Permits
from collegium_router.limits.resources import LOW_WAITS_MS, Resources, model_resource, pool_resource
from collegium_router.queue.fairness import Entry, FairQueue, Standing
from collegium_router.queue.intake import Queued
from collegium_router.queue.lines import arrived_ms, route_of
from collegium_router.roster.bases import upstream_of

log = structlog.get_logger(__name__)

SLOTS = 64
TICK_SECONDS = 0.1
CONTEXT_AGAIN_MS = 400
LOOK_AGAIN_MS = 1_000
STALLED_MS = 2_000
# A tenant of a tier that the configuration does not know.
UNKNOWN_TIER = (5, 1)
OWN_POOL = pool_resource("")

Verdict = Planned | Wait | TaskError


class Dispatcher:
    """The queue of all shards that this router owns, and the slots that empty it."""

    def __init__(
        self, platform: Platform, permits: Permits, resources: Resources, probes: Probes, policies: Policies
    ) -> None:
        self._platform = platform
        self._probes = probes
        self._permits = permits
        self._resources = resources
        self._sender = Sender(platform)
        self._lookups = Lookups(platform)
        self._policies = policies
        self.trials = Trials(policies)
        self._sight = Sight(platform, self._embeds, self._queue_seen, policies.domains.given)
        self._tiers: dict[str, tuple[int, int]] = {}
        self.use_tiers(platform.settings.tiers)
        self._queue: FairQueue[Verdict] = FairQueue()
        self._of_task: dict[str, set[str]] = {}
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._free_slots = SLOTS
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatched = Counter[int]()
        self._released_ms = 0
        self.why_cancel: Callable[[str], StopReason | None] = lambda _task: None
        self.still_ours: Callable[[Queued], bool] = lambda _queued: True

    @property
    def queued(self) -> int:
        """How many entries wait."""
        return len(self._queue)

    def use_tiers(self, tiers: Mapping[str, TierSettings]) -> None:
        """Swaps the tiers' concurrency and weights; what is queued already keeps its weight."""
        self._tiers = {name: (tier.concurrency, tier.weight) for name, tier in tiers.items()}

    def start(self) -> None:
        """Starts the slots."""
        self._tasks = [asyncio.create_task(self._slot(), name=f"dispatch-{number}") for number in range(SLOTS)]
        self._tasks.append(asyncio.create_task(self._tick(), name="dispatch-tick"))

    async def stop(self) -> None:
        """Stops the slots; what they held stays in INGRESS for the next owner."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sight.stop()

    def accept(self, queued: Queued) -> None:
        """Queues one message of INGRESS, after a look at its question where its tenant's policy wants that."""
        if not self._sight.looks(queued):
            self._queue_up(queued)

    def _embeds(self, tenant: str) -> bool:
        return self._policies.embeds(tenant) or self.trials.embeds(tenant)

    def _route(self, queued: Queued, now_ms: int) -> Route | None:
        return self.trials.route_of(queued.message, self._resources.models, self._sight.of(queued.task.id), now_ms)

    def _queue_seen(self, queued: Queued) -> None:
        if self.still_ours(queued):
            self._queue_up(queued)
        else:
            self._sight.forget(queued.task.id)

    def _queue_up(self, queued: Queued) -> None:
        task, now = queued.task, self._platform.now_ms()
        weight = self._tiers.get(task.tier, UNKNOWN_TIER)[1]
        entry = Entry(
            queued.key,
            task.tenant,
            queued,
            arrived_ms=arrived_ms(queued, now),
            deadline_ms=task.deadline_ms,
            weight=weight,
            priority=task.priority,
            route=route_of(queued, is_limited=bool(self._resources.quotas.limited)),
        )
        if not self._queue.push(entry, now):
            # The same message again: its first copy is in hand, or waits for its turn.
            queued.shard.finish(queued.subject, queued.sequence)
            return
        self._of_task.setdefault(task.id, set()).add(entry.key)
        failpoint("router.after-receive")
        reason = self.why_cancel(task.id)
        if reason is not None:
            self.cancel(task.id, reason)
        else:
            self.pump()

    def drop(self, ours: Callable[[Queued], bool]) -> None:
        """Forgets what another router owns now."""
        for entry in self._queue.all_of(lambda entry: not ours(entry.item)):
            self._queue.remove(entry.key)
            self._forget(entry.item)

    def cancel(self, task_id: str, reason: StopReason) -> None:
        """Ends whatever of a task waits here."""
        for key in list(self._of_task.get(task_id, ())):
            entry = self._queue.remove(key)
            if entry is not None:
                end = canceled(entry.item.message, self._platform.now_ms(), reason)
                self._jobs.put_nowait(Job(entry, end=end, takes_slot=False))

    def standing(self, task_id: str) -> Standing | None:
        """Returns where a task stands in the queue; none where it is not in it."""
        now = self._platform.now_ms()
        found = [self._queue.standing(key, now) for key in self._of_task.get(task_id, ())]
        return min((one for one in found if one is not None), key=lambda one: one.position, default=None)

    def queued_of(self, tenant: str) -> int:
        """How many entries of a tenant could go, were there room."""
        return self._queue.ready_of(tenant)

    def per_second(self) -> float:
        """How many entries were dispatched a second of late."""
        second = self._platform.now_ms() // 1000
        return sum(self._dispatched[second - back] for back in range(1, 6)) / 5

    def wanted(self) -> dict[str, int]:
        """Counts what waits for each resource: a named model for itself, and every entry for the pools."""
        found = Counter[str]()
        for (model, *rest), count in self._queue.ready_by_route().items():
            record = self._resources.models.get(model)
            own = rest[-1] if len(rest) > 1 and rest[-1].startswith(OWN_POOL) else ""
            if own:
                found[own] += count
            if record is not None:
                found[model_resource(upstream_of(record))] += count
                if not own:
                    found[pool_resource(record.pool)] += count
            else:
                for pool in {one.pool for one in self._resources.models.values()} if not own else ():
                    found[pool_resource(pool)] += count
                for name in {upstream_of(one) for one in self._resources.models.values()}:
                    found[model_resource(name)] += count
        return found

    def release(self, task: str, number: int = 0, try_number: int = 0) -> None:
        """Gives back the permits of what ended."""
        if self._permits.give_back(task, number, try_number):
            self._released_ms = self._platform.now_ms()
            self.pump()

    def pump(self) -> None:
        """Hands out entries as long as one can go and a slot is free."""
        if not self._queue or not self._resources.any_room():
            return
        now = self._platform.now_ms()
        self._resources.turn_prices(now)
        fleet = Fleet(
            self._resources.models, self._permits.by_model, self._resources.open_until_ms, self._resources.has_room,
            now, self._resources.quotas.gate,
            lambda submitted, models: self._policies.order(submitted, models, self._sight.of(submitted.task.id), now),
            self.trials.trying(self._sight.of, now),
            self._policies.novel_members,
            self._permits.models_of,
        )  # fmt: skip
        while self._free_slots > 0:
            taken = self._queue.take(now, lambda entry: self._judge(entry, fleet))
            if taken is None:
                return
            entry, verdict = taken
            queued: Queued = entry.item
            if isinstance(verdict, Wait):
                self._put_back(entry, verdict, now)
                continue
            self._free_slots -= 1
            if isinstance(verdict, TaskError):
                self._jobs.put_nowait(Job(entry, end=failed(queued.message, verdict, now)))
                continue
            for key, attempt, tokens in zip(keys_of(queued, verdict), verdict.attempts, verdict.tokens, strict=True):
                self._permits.take(Permit(key, entry.tenant, attempt.model, attempt.pool, now, 0, tokens))
            if verdict.route is not None:
                self._policies.chose(entry.tenant, verdict.route.rank)
            self._jobs.put_nowait(Job(entry, verdict, fleet.models))

    def _judge(self, entry: Entry, fleet: Fleet) -> Verdict | None:
        """Says what becomes of an entry now; none where it has to wait for a permit."""
        queued: Queued = entry.item
        if queued.task.checks:
            # The place of the attempt whose answer it checks; waiting for one, both would wait in vain.
            fleet = fleet._replace(has_room=self._resources.has_slot)
        elif self._permits.by_tenant[entry.tenant] >= self._tiers.get(queued.task.tier, UNKNOWN_TIER)[0]:
            return None
        verdict = decide(queued.message, fleet)
        if isinstance(verdict, Busy):
            return None
        if isinstance(verdict, Wait) and verdict.is_full and not ends_waiting(entry, verdict, fleet.now_ms):
            # It keeps its place: a quota frees bit by bit, and whoever came first is to have it.
            return None
        if isinstance(verdict, Planned) and entry.priority == "low" and fleet.now_ms - entry.arrived_ms < LOW_WAITS_MS:
            return None if self._resources.throttles_low(verdict.attempts[0].pool) else verdict
        return verdict

    def _put_back(self, entry: Entry, wait: Wait, now_ms: int) -> None:
        """Keeps an entry until its time, or ends it where its deadline comes first."""
        queued: Queued = entry.item
        # A breaker may close before its time, so what waits for it looks again.
        again_ms = min(wait.until_ms, now_ms + LOOK_AGAIN_MS) if wait.is_open else wait.until_ms
        if not ends_waiting(entry, wait, now_ms):
            self._queue.push(entry.held_until(again_ms), now_ms)
            return
        error = queued.error or unavailable(queued.task.id, wait, (wait.until_ms - now_ms) / 1000)
        self._free_slots -= 1
        end = failed(queued.message, error, now_ms, route=self._route(queued, now_ms))
        self._jobs.put_nowait(Job(entry, end=end))

    async def _slot(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                again_ms = await self._until_done(job)
            except Exception as error:
                # Nothing that one entry meets may cost a slot, or its permits, or its own way on.
                log.error("dispatch failed, taken up again", task=job.queued.task.id, exc_info=error)
                self._give_back(job)
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter
                again_ms = self._platform.now_ms() if self.still_ours(job.queued) else 0
            self._free_slots += job.takes_slot
            if again_ms:
                self._push_again(job.entry, again_ms)
            else:
                self._forget(job.queued)
            if self._queue:
                self.pump()

    def _push_again(self, entry: Entry, until_ms: int) -> None:
        queued: Queued = entry.item
        self._queue.push(entry.held_until(until_ms), self._platform.now_ms())
        if (reason := self.why_cancel(queued.task.id)) is not None:
            self.cancel(queued.task.id, reason)

    def _forget(self, queued: Queued) -> None:
        keys = self._of_task.get(queued.task.id)
        if keys is not None:
            keys.discard(queued.key)
            if not keys:
                del self._of_task[queued.task.id]
                self._sight.forget(queued.task.id)

    async def _until_done(self, job: Job) -> int:
        """Carries out one job, however long the broker takes, as long as its shard is ours.

        Returns 0, or the time (Unix ms) after which the entry is to be taken up again.
        """
        queued = job.queued
        task = queued.task
        with self._platform.tracing.hop("router dispatch", "consumer", queued.traceparent) as hop:
            if hop.sampled:
                hop.describe(said_of(job))
            while self.still_ours(queued):
                try:
                    again_ms = await self._carry_out(job, hop)
                    if not again_ms:
                        self._note_sent(job)
                        failpoint("router.before-purge")
                        queued.shard.finish(queued.subject, queued.sequence)
                        return 0
                    self._give_back(job)
                    return again_ms
                except QueueFullError:
                    await asyncio.sleep(random.uniform(0.005, 0.03))  # noqa: S311 - jitter
                except BusError as error:
                    log.warning("dispatch failed, trying again", task=task.id, error=str(error))
                    await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter
        self._give_back(job)
        return 0

    def _note_sent(self, job: Job) -> None:
        now = self._platform.now_ms()
        for key in job.keys:
            self._permits.sent(key, now)

    @property
    def is_stalled(self) -> bool:
        """Whether entries wait, permits are out, and none has come back of late."""
        return (
            bool(self._queue) and self._permits.in_use > 0 and self._released_ms + STALLED_MS < self._platform.now_ms()
        )

    def _give_back(self, job: Job) -> None:
        for key in job.keys:
            self._permits.give_back(*key)

    async def _carry_out(self, job: Job, hop: Hop) -> int:
        """One try; returns 0 where it is done, else when it may be made again (Unix ms)."""
        queued, now = job.queued, self._platform.now_ms()
        if job.plan is None:
            assert job.end is not None, "a job is a plan or an end"
            await self._sender.end(queued, job.end, hop)
            return 0
        if (queued.replayed or queued.task.not_before_ms) and await self._sender.is_settled(queued.task):
            self._permits.give_back(queued.task.id)
            return 0
        self._dispatched[now // 1000] += 1
        if isinstance(queued.message, AttemptRequested):
            failpoint("router.before-again")
            await self._sender.dispatch_again(queued.message, job.plan, job.models, hop)
            failpoint("router.after-again")
            return 0
        added = NOTHING
        if needs(queued.task):
            found = await self._lookups.of(queued.message, job.plan, job.models, hop)
            if found is None:
                # Context is behind or away: the entry waits in the queue, where it can be canceled and expires.
                return now + random.randint(CONTEXT_AGAIN_MS // 4, CONTEXT_AGAIN_MS)  # noqa: S311 - jitter
            if isinstance(found, TaskError):
                self._give_back(job)
                await self._sender.end(queued, failed(queued.message, found, now, route=job.plan.route), hop)
                return 0
            added = found
        # From here on a plan that was open is what it was given, however often it is taken up again.
        queued.message = given(queued.message, job.plan)
        failpoint("router.before-dispatch")
        await self._sender.dispatch(queued.message, job.plan, job.models, added, hop)
        failpoint("router.after-dispatch")
        if self._probes.is_on:
            await self._probes.draw(queued.message, hop, job.plan)
        return 0

    async def _tick(self) -> None:
        """Ends what expired, lets go what was held, and forgets old counts."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._platform.now_ms()
            for entry in self._queue.expired(now):
                end = expired(entry.item.message, now, self._route(entry.item, now))
                self._jobs.put_nowait(Job(entry, end=end, takes_slot=False))
            if self._queue:
                self.pump()
            for second in [second for second in self._dispatched if second < now // 1000 - 10]:
                del self._dispatched[second]
