"""Asking settled work again: the router stores the question where it has it, and asks once the answer has settled.

The prompt of a task is at hand where the task is dispatched, sealed with its tenant's key, and the router passes it on
unread; nobody else has to be given it. A drawn task's probe waits in SCHEDULE like any task of later. When its time has
come, the settled message says whether it is worth its price and of whom; then it goes the way of every task. One rule:
a probe that is lost costs learning, and nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import BusError
from collegium_bus.schedules import ScheduleStream
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.callnote import read_note
from collegium_contracts.errors import ContractError
from collegium_contracts.event_subjects import EventSubject
from collegium_contracts.experiments import INSTRUCTION_BYTES_MAX
from collegium_contracts.holds import parse_billed
from collegium_contracts.journey import HOPS
from collegium_contracts.messages import SettledMessage, TaskRef, TaskSubmitted
from collegium_contracts.parts import Probe, ProbeKind
from collegium_contracts.ranks import as_ranked
from collegium_contracts.spending import ProbeOut, SpendingKept
from collegium_contracts.state import ModelRecord
from collegium_contracts.students import HeldOutAsk, HeldOutState, may_ask
from collegium_contracts.worstcase import worst_cost_picos
from collegium_learning.probing import Allowance, asked_of, can_be_probed, held_out_of, is_drawn, probe_of
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, sent
from collegium_settings import Settings
from collegium_telemetry.hop import Hop

from collegium_router.choosing.plan import Planned
from collegium_router.limits.resources import Resources

log = structlog.get_logger(__name__)

SPAN_EXAMINE: Final = "router examine student"
SCHEDULED: Final = next(hop.subject for hop in HOPS if hop.filter == s.SCHEDULE_TASK_ALL)
KINDS: Final[tuple[ProbeKind, ...]] = ("audit", "shadow")
# No deadline is longer than an hour; what has not settled then is not asked again.
UNSETTLED_MS_MAX: Final = 2 * 3_600_000
# How long after its deadline a probe has surely ended, however late it was found to be over.
ENDED_AFTER_MS: Final = UNSETTLED_MS_MAX


class Probes:
    """Stores and asks probes; ``off`` unless the configuration states a share, or an experiment ``interleaves``."""

    def __init__(self, platform: Platform, resources: Resources) -> None:
        self._platform = platform
        self._resources = resources
        self._stream = ScheduleStream(platform.connection, platform.publisher)
        self._settings = platform.settings.evolution.probes
        # By shard: each tenant's work counts with the router that owns it, and pays for nobody else's probes.
        self._allowances = {shard: Allowance(self._settings.budget_share) for shard in ids.SHARDS}
        self._shares = self._drawn_shares()
        # Of a tenant: the cheaper models that may be good enough, as far as its policy knows.
        self.in_play: Callable[[str], Collection[str]] = lambda _tenant: ()
        self.interleaves: Callable[[], bool] = lambda: False
        # Whether the roster has a fine-tuned model, which is asked what it was not trained on.
        self.examines = False

    def use_settings(self, settings: Settings) -> None:
        """Takes a changed configuration; what was earned stays."""
        self._settings = settings.evolution.probes
        for allowance in self._allowances.values():
            allowance.share = self._settings.budget_share
        self._shares = self._drawn_shares()

    def _drawn_shares(self) -> tuple[tuple[ProbeKind, float], ...]:
        shares: dict[ProbeKind, float] = {"audit": self._settings.audit_share, "shadow": self._settings.shadow_share}
        return tuple((kind, shares[kind]) for kind in KINDS if shares[kind] > 0.0)

    def allowance(self, tenant: str) -> Allowance:
        """Returns what a tenant's probes may cost, together with those of its shard."""
        return self._allowances[ids.shard_of(tenant)]

    def kept(self, shard: int) -> tuple[float, int, dict[str, ProbeOut]]:
        """Returns what is kept of a shard's allowance: what was earned and spent (picos), and which probes are out.

        Those that have surely ended are forgotten, and stay spent.
        """
        self._allowances[shard].forget(self._platform.now_ms())
        return self._allowances[shard].kept()

    def load(self, kept: SpendingKept) -> None:
        """Takes over what was kept of a shard's allowance."""
        self._allowances[kept.shard].load(kept.earned_picos, kept.spent_picos, kept.out)

    def forget(self, shard: int) -> None:
        """Begins a shard's allowance anew."""
        self._allowances[shard] = Allowance(self._settings.budget_share)

    @property
    def is_on(self) -> bool:
        """Whether anything is asked again."""
        return bool(self._shares) or self.examines or self.interleaves()

    def hear(self, about: EventSubject, delivery: Delivery) -> None:
        """Earns a share of what a settled task was charged, and takes back what an ended probe did not cost."""
        if about.kind == "settled":
            billed = parse_billed(delivery.header(s.H_BILLED))
            if billed is not None:
                self.allowance(about.tenant).earn(billed.picos)
                if not billed.tokens:
                    # Nothing was called, as of a probe whose deadline passed in its queue: no call's end was told.
                    self.allowance(about.tenant).ended(about.task, 0)
        elif about.kind == "ended":
            note = read_note(delivery.header(s.H_CALL))
            model = self._resources.models.get(note.model) if note is not None else None
            if note is not None and model is not None:
                dearest = max(model.price.input_picos, model.price.output_picos)
                self.allowance(about.tenant).ended(about.task, note.tokens * dearest + model.price.call_picos)

    async def draw(self, submitted: TaskSubmitted, hop: Hop, planned: Planned | None = None) -> None:
        """Stores the probes of a task that was just dispatched, where it was drawn and is covered.

        Its plan may ask the other arm of an experiment too. What was given to a model to learn of it is audited always,
        where anything is: that is what tells most.
        """
        task = submitted.task
        other, route = (planned.other, planned.route) if planned is not None else (None, None)
        is_explored = route is not None and route.explored
        kinds: list[ProbeKind] = [
            kind for kind, share in self._shares if (is_explored and kind == "audit") or is_drawn(task.id, kind, share)
        ]
        drawn = [Probe(of=task.id, kind=kind) for kind in kinds] + ([other] if other is not None else [])
        if not drawn or not self._settings.allows(task.tenant) or not can_be_probed(submitted):
            return
        longest = INSTRUCTION_BYTES_MAX if other is not None and other.instruction is not None else 0
        bounded = msgspec.structs.replace(submitted, prompt_bytes=submitted.prompt_bytes + longest)
        for one in drawn:
            kind, probe = one.kind, msgspec.structs.replace(one, account=self._settings.account)
            bound = worst_cost_picos(bounded, self._may_be_asked(submitted, kind))
            waiting = probe_of(submitted, probe, self._platform.now_ms(), self._settings.delay_seconds * 1000)
            if not self._spend(waiting.task, bound):
                log.info("probe not covered", task=task.id, kind=kind)
                return
            try:
                await self._put(waiting, waiting.task.not_before_ms, hop.traceparent)
            except BusError as error:
                self.allowance(task.tenant).ended(waiting.task.id, 0)
                log.warning("probe not stored", task=task.id, kind=kind, error=str(error))
            failpoint("router.after-draw")

    async def hold_out(self, asked: HeldOutAsk) -> HeldOutState:
        """Stores the question that a fine-tuned model was not trained on, where it is covered; the same one again
        changes nothing.

        Raises BusError where it cannot be stored now.
        """
        if not self._settings.allows(asked.tenant):
            return "not_allowed"
        waiting = held_out_of(asked, self._settings.account, self._platform.now_ms())
        task = waiting.task
        model = self._examined(task)
        if model is None:
            return "no_model"
        if await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, task.id)) is not None:
            return "taken"
        if not self._spend(task, worst_cost_picos(waiting, [model])):
            return "not_covered"
        try:
            with self._platform.tracing.root(SPAN_EXAMINE, "producer") as hop:
                if hop.sampled:
                    hop.describe(sent(SCHEDULED) | about(waiting))
                await self._put(waiting, task.not_before_ms, hop.traceparent)
        except BusError:
            self.allowance(task.tenant).ended(task.id, 0)
            raise
        return "taken"

    def _spend(self, probe: TaskRef, bound_picos: int) -> bool:
        """Takes the most that a probe may cost; false where it is not covered."""
        return self.allowance(probe.tenant).spend(probe.id, bound_picos, probe.deadline_ms + ENDED_AFTER_MS)

    def _examined(self, task: TaskRef) -> ModelRecord | None:
        """Returns the model that a held out question is for; none where it may not be asked now."""
        assert task.probe is not None, "only probes are asked here"
        model = self._resources.models.get(task.probe.model)
        if model is None or not model.enabled or model.drained or not may_ask(model.student, task.tenant):
            return None
        return model

    def _may_be_asked(self, submitted: TaskSubmitted, kind: ProbeKind) -> list[ModelRecord]:
        """Returns whose price bounds a probe: shadows ask nobody of the highest rank."""
        task = submitted.task
        return [
            model
            for model in self._resources.models.values()
            if kind != "shadow" or as_ranked(model, task.tenant, task.domain).rank != "teacher"
        ]

    async def ready(self, waiting: TaskSubmitted, traceparent: str) -> TaskSubmitted | None:
        """Returns a probe as it is asked; none where it is not worth it, or has to wait for its task to settle.

        Raises BusError where what has settled cannot be read now.
        """
        task, probe = waiting.task, waiting.task.probe
        assert probe is not None, "only probes are asked here"
        if probe.kind == "held_out":
            if self._examined(task) is not None and self._settings.allows(task.tenant):
                return waiting
            self.allowance(task.tenant).ended(task.id, 0)
            return None
        stored = await self._platform.direct.last(s.EVENTS, s.task_settled(task.tenant, probe.of))
        if stored is None:
            now_ms = self._platform.now_ms()
            if now_ms - task.created_at_ms < UNSETTLED_MS_MAX:
                await self._put(waiting, now_ms + self._settings.delay_seconds * 1000, traceparent)
            else:
                self.allowance(task.tenant).ended(task.id, 0)
            return None
        settled = await self._settled(stored.headers.get(s.H_CLAIM, ""), stored.payload)
        model = ""
        if settled is not None:
            model = asked_of(probe, settled, self._resources.models, self.in_play(task.tenant))
        if not model or not self._settings.allows(task.tenant):
            self.allowance(task.tenant).ended(task.id, 0)
            return None
        return msgspec.structs.replace(waiting, task=msgspec.structs.replace(task, model=model))

    async def _settled(self, claim: str, payload: bytes) -> SettledMessage | None:
        try:
            return codec.settled.decode(await self._platform.claims.get(claim) if claim else payload)
        except ContractError as error:
            log.warning("settled message unreadable, not asked again", error=str(error))
            return None

    async def _put(self, waiting: TaskSubmitted, at_ms: int, traceparent: str) -> None:
        task = waiting.task
        await self._stream.put(
            s.schedule_task(task.tenant, task.id),
            codec.encode(waiting),
            at_ms=at_ms,
            shard=ids.shard_of(task.tenant),
            headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
        )
