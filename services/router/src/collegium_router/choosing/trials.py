"""Experiments and flags as the router applies them: the newest sets that could be read, swapped whole.

Who is given which arm is drawn by contracts' ``trials``, the same on every router. A task is part of an experiment only
where both of its arms could be carried out, so that neither is given what the other could not do: both models may
answer, both versions of a policy are known here, the longer instruction fits. One rule: an arm says who is preferred
and what is told first; who may answer is not its to say, and a named model is never swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import structlog
from collegium_contracts import codec
from collegium_contracts.errors import ContractError, TaskError
from collegium_contracts.experiments import ARM_KEY_PREFIX, KEY, Change, ExperimentSet
from collegium_contracts.messages import AttemptRequested, TaskSubmitted
from collegium_contracts.parts import Probe
from collegium_contracts.plans import AT_FIRST
from collegium_contracts.policies import RoutingPolicy
from collegium_contracts.routing import Route
from collegium_contracts.state import ModelRecord
from collegium_contracts.trials import Assigned, assigned, drawn, other_arm
from collegium_learning.routing.predicting import Predictor

from collegium_router.choosing.plan import AUTO, Tried, Trying, Wider, eligible, fits, within_budget
from collegium_router.choosing.policies import Policies
from collegium_router.choosing.seen import Seen
from collegium_router.roster.fleet_models import Models

log = structlog.get_logger(__name__)


class Trials:
    """The sets that stand, by tenant; ``refused`` counts values that could not be read."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._sets: dict[str, ExperimentSet] = {}
        self._arms: dict[str, Predictor] = {}
        self._revisions: dict[str, int] = {}
        self.refused = 0

    def trying(self, seen: Callable[[str], Seen | None], now_ms: int) -> Trying | None:
        """Returns what plans ask; none where nothing applies to anybody. ``seen`` tells what is known of a question."""
        if not self._sets:
            return None
        return lambda submitted, models: self.of(submitted, models, seen(submitted.task.id), now_ms)

    @property
    def interleaves(self) -> bool:
        """Whether any experiment wants questions answered by both arms."""
        return any(one.interleave > 0.0 for known in self._sets.values() for one in known.experiments)

    def use(self, key: str, value: bytes, revision: int = 0) -> None:
        """Learns the value of a key of the bucket; what cannot be read is told, and the last good one stays."""
        is_set = key == KEY or key.startswith(f"{KEY}.")
        if not (is_set or key.startswith(ARM_KEY_PREFIX)) or (revision and self._revisions.get(key) == revision):
            return
        self._revisions[key] = revision
        try:
            known = codec.state.decode(value)
            if (
                is_set
                and isinstance(known, ExperimentSet)
                and key == (f"{KEY}.{known.tenant}" if known.tenant else KEY)
            ):
                self._keep(known)
            elif not is_set and isinstance(known, RoutingPolicy):
                self._arms[key.removeprefix(ARM_KEY_PREFIX)] = Predictor(known)
            else:
                raise ValueError(f"{type(known).__name__} is nothing of {key}")
        except (ContractError, ValueError, ArithmeticError) as error:
            self.refused += 1
            log.error("experiments unreadable, keeping the last good ones", key=key, error=str(error))

    def forget(self, key: str) -> None:
        """Forgets a key of the bucket that was deleted."""
        self._revisions.pop(key, None)
        self._arms.pop(key.removeprefix(ARM_KEY_PREFIX), None)
        if key == KEY or key.startswith(f"{KEY}."):
            self._sets.pop(key.removeprefix(KEY).removeprefix("."), None)

    def of(
        self, submitted: TaskSubmitted, models: Sequence[ModelRecord], seen: Seen | None, now_ms: int
    ) -> Tried | None:
        """Returns what an experiment or a flag makes of a task; none where it is part of none."""
        found = assigned(submitted.task, self._sets)
        if found is None:
            return None
        experiment = found.experiment
        changes = (found.change,) if experiment is None else (experiment.control, experiment.candidate)
        longest = max(change.instruction_bytes for change in changes)
        able = [model for model in models if fits(submitted.prompt_bytes + longest, model)] if longest else models
        if not able or not all(self._can(change, submitted.task.tenant, able) for change in changes):
            return None
        tried = self._tried(found, submitted, able, seen, now_ms)
        return tried._replace(other=self._other(found, tried, submitted, able, seen, now_ms))

    def route_of(
        self, message: TaskSubmitted | AttemptRequested, models: Models, seen: Seen | None, now_ms: int
    ) -> Route | None:
        """Returns how a task would have gone that ends before anything is sent; none where it is part of nothing."""
        if not self._sets or not isinstance(message, TaskSubmitted):
            return None
        able = eligible(message.task, message.prompt_bytes, models)
        if not isinstance(able, TaskError):
            able = within_budget(message, able)
        tried = self.of(message, able, seen, now_ms) if not isinstance(able, TaskError) else None
        return tried.route if tried is not None else None

    def embeds(self, tenant: str) -> bool:
        """Whether the features of a tenant's questions are wanted by a policy that is tried on its tasks."""
        wanted = [name for name, arm in self._arms.items() if arm.policy.embeds and arm.policy.tenant == tenant]
        if not wanted:
            return False
        sets = [one for one in (self._sets.get(tenant), self._sets.get("")) if one is not None]
        changes = [change for one in sets for tried in one.experiments for change in (tried.control, tried.candidate)]
        changes += [flag.change for one in sets for flag in one.flags]
        return any(f"{tenant}.{change.policy_version}" in wanted for change in changes)

    def _keep(self, known: ExperimentSet) -> None:
        # A holdout alone counts too: the operator's keeps units out of what a tenant runs.
        if known.experiments or known.flags or known.killed or known.holdout:
            self._sets[known.tenant] = known
        else:
            self._sets.pop(known.tenant, None)

    def _can(self, change: Change, tenant: str, models: Sequence[ModelRecord]) -> bool:
        if change.model and all(model.name != change.model for model in models):
            return False
        if change.plan == "panel" and len(models) < AT_FIRST:
            return False
        return not change.policy_version or f"{tenant}.{change.policy_version}" in self._arms

    def _tried(
        self, found: Assigned, submitted: TaskSubmitted, models: Sequence[ModelRecord], seen: Seen | None, now_ms: int
    ) -> Tried:
        task, change = submitted.task, found.change
        why = "flag" if found.trial.arm == "flag" else "experiment"
        if change.model:
            ordered = sorted(models, key=lambda model: model.name != change.model)
            route = Route(model=change.model, rank=ordered[0].rank, domain=task.domain, reasons=[why])
        elif task.model != AUTO:
            ordered = models
            route = Route(model=models[0].name, rank=models[0].rank, domain=task.domain, reasons=[why])
        else:
            arm = self._arms.get(f"{task.tenant}.{change.policy_version}") if change.policy_version else None
            ordered, route = self._policies.order(submitted, models, seen, now_ms, predictor=arm)
            route = msgspec.structs.replace(route, reasons=[why, *route.reasons])
        return Tried(
            ordered,
            msgspec.structs.replace(route, trial=found.trial),
            is_ordered=bool(change.model) or route.policy_version > 0,
            instruction=change.instruction,
            instruction_bytes=change.instruction_bytes,
            wider=_wider(found),
        )

    def _other(
        self,
        found: Assigned,
        tried: Tried,
        submitted: TaskSubmitted,
        models: Sequence[ModelRecord],
        seen: Seen | None,
        now_ms: int,
    ) -> Probe | None:
        """Returns what asks the other arm too, of a task drawn for it; none where both arms would do the same."""
        experiment, task = found.experiment, submitted.task
        if experiment is None or drawn(f"interleave\0{experiment.id}", task.id) >= experiment.interleave:
            return None
        other = other_arm(found)
        if other is None:
            return None
        then = self._tried(other, submitted, models, seen, now_ms)
        model = then.models[0].name
        if model == tried.models[0].name and then.instruction == tried.instruction:
            return None
        return Probe(of=task.id, kind="trial", model=model, trial=other.trial, instruction=then.instruction)


def _wider(found: Assigned) -> Wider | None:
    """Returns what an open plan may become: what a trial of plans says, or as ever where nothing is changed of it."""
    if found.change.plan:
        return Wider(found.change.plan, found.change.members)
    is_of_plans = found.experiment is not None and found.experiment.kind == "plan"
    return Wider() if is_of_plans or found.trial.arm == "holdout" else None
