"""Who is given which arm: one pure draw, the same in every process that makes it.

A unit is a conversation, a user (the request's tag ``user``) or a task; what has no conversation or user is drawn as a
task. The draw is a hash of the experiment and the unit, so a unit keeps its arm as long as the experiment runs, and
raising the share takes units in without moving any. Routers draw to choose, gateways to know which answers may be given
again to whom. One rule: what the draw depends on is in the task and in the published sets alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from collegium_contracts.experiments import NOTHING, Change, ExperimentSet, Running, RunningFlag, Trial, Unit
from collegium_contracts.parts import Plan, TaskRef

USER_TAG: Final = "user"
# In which order plans of several are told.
ORDER: Final[tuple[Plan, ...]] = ("cascade", "panel")
_DRAWS: Final = 2**53


class Assigned(NamedTuple):
    """What a task was given: its trial, what that changes, and (of an experiment) the experiment."""

    trial: Trial
    change: Change
    experiment: Running | None = None


def takes_part(task: TaskRef) -> bool:
    """Whether a task may be part of anything: one chat, answered by one attempt, that somebody asked."""
    is_asked = task.probe is None and not task.checks and not task.tests
    return task.kind == "chat" and task.plan in ("auto", "single") and is_asked and task.people is None


def assigned(task: TaskRef, sets: Mapping[str, ExperimentSet]) -> Assigned | None:
    """Returns what a task is given; none where nothing applies to it. ``sets`` are by tenant, the operator's under ''.

    A running experiment goes before flags, and a tenant's own before the operator's.
    """
    standing = [one for one in (sets.get(task.tenant), sets.get("")) if one is not None and not one.killed]
    everybody = sets.get("")
    if not standing or not takes_part(task) or (everybody is not None and everybody.killed):
        return None
    # Of both the larger holdout counts, so that what an operator holds out of everything is held out here too.
    holdout = max(one.holdout for one in standing)
    for one in standing:
        for experiment in one.experiments:
            if is_on(experiment, task):
                found = _drawn(experiment, task, holdout)
                if found is not None:
                    return found
    for one in standing:
        for flag in one.flags:
            if is_on(flag, task):
                unit = unit_of(flag.name, flag.unit, task)
                if not is_held_out(flag.unit, task, holdout) and drawn(f"flag\0{flag.name}", unit) < flag.share:
                    trial = Trial(id=flag.name, arm="flag", unit=unit, revision=flag.revision)
                    return _given(trial, flag.change)
    return None


def other_arm(found: Assigned) -> Assigned | None:
    """Returns the other arm of an experiment that a task is in; none outside of one."""
    if found.experiment is None or found.trial.arm not in ("control", "candidate"):
        return None
    is_control = found.trial.arm == "control"
    trial = msgspec.structs.replace(found.trial, arm="candidate" if is_control else "control")
    change = found.experiment.candidate if is_control else found.experiment.control
    return _given(trial, change, found.experiment)


def is_on(surface: Running | RunningFlag, task: TaskRef) -> bool:
    """Whether a task is on the surface of an experiment or a flag, and held for what that may make of it."""
    return _meets(surface, task) and (surface.kind != "plan" or _plans(surface) <= set(task.open_to))


def _meets(surface: Running | RunningFlag, task: TaskRef) -> bool:
    return (
        surface.tenant in ("", task.tenant)
        and surface.domain in (None, task.domain)
        and surface.model == task.model
        # What is held for a task of later is counted when it is released, by who knows no instructions; and what a task
        # may cost at most is compared with its own words.
        and not (surface.kind == "prompt" and (task.not_before_ms or task.cost_max_picos))
    )


def plans_of(task: TaskRef, sets: Mapping[str, ExperimentSet]) -> tuple[list[Plan], int]:
    """Returns the plans of several that a task may be given by what runs, and how many members a panel has at most.

    ``task`` is one whose client named no plan; it is part of a trial of plans only where it is held for all of them.
    """
    standing = [one for one in (sets.get(task.tenant), sets.get("")) if one is not None and not one.killed]
    if not takes_part(task):
        return [], 0
    tried = [
        surface
        for one in standing
        for surface in (*one.experiments, *one.flags)
        if surface.kind == "plan" and _meets(surface, _anywhere(surface, task))
    ]
    plans: list[Plan] = [plan for plan in ORDER if any(plan in _plans(surface) for surface in tried)]
    members = [change.members for surface in tried for change in _changes(surface) if change.plan == "panel"]
    return plans, max(members, default=0)


def _plans(surface: Running | RunningFlag) -> set[Plan]:
    return {change.plan for change in _changes(surface) if change.plan and change.plan != "single"}


def _changes(surface: Running | RunningFlag) -> tuple[Change, ...]:
    return (surface.control, surface.candidate) if isinstance(surface, Running) else (surface.change,)


def overlaps(one: Running, other: Running) -> bool:
    """Whether a task could be on the surface of both."""
    return (
        (one.tenant == other.tenant or not one.tenant or not other.tenant)
        and (one.domain == other.domain or one.domain is None or other.domain is None)
        and one.model == other.model
    )


def unit_of(name: str, unit: Unit, task: TaskRef) -> str:
    """Returns a task's unit as a hash that is an experiment's own: nobody is recognised by it in another one."""
    return _hash(f"{name}\0{_named(unit, task)}")


def is_held_out(unit: Unit, task: TaskRef, share: float) -> bool:
    """Whether a task's unit is in the holdout of such a share: the same units for every experiment."""
    return share > 0.0 and drawn("holdout", _hash(_named(unit, task))) < share


def drawn(what: str, unit: str) -> float:
    """Returns a number in [0, 1) that is a unit's own for ``what``, and even over units."""
    digest = hashlib.blake2s(f"{what}\0{unit}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / _DRAWS


def instruction_bytes(task: TaskRef, sets: Mapping[str, ExperimentSet]) -> int:
    """Returns the most that anything may put before a task's messages, in whichever arm it is."""
    standing = [one for one in (sets.get(task.tenant), sets.get("")) if one is not None and not one.killed]
    changes = [
        change
        for one in standing
        for surface in (*one.experiments, *one.flags)
        if surface.kind == "prompt" and is_on(surface, _anywhere(surface, task))
        for change in _changes(surface)
    ]
    return max((change.instruction_bytes for change in changes), default=0)


def _anywhere(surface: Running | RunningFlag, task: TaskRef) -> TaskRef:
    """Returns a task whose domain is still to be found out as one of the surface's."""
    if task.domain or surface.domain is None:
        return task
    return msgspec.structs.replace(task, domain=surface.domain)


def _drawn(experiment: Running, task: TaskRef, holdout: float) -> Assigned | None:
    unit = unit_of(experiment.id, experiment.unit, task)
    if drawn(f"share\0{experiment.id}", unit) >= experiment.share:
        return None
    if is_held_out(experiment.unit, task, holdout):
        trial = Trial(id=experiment.id, arm="holdout", unit=unit, revision=experiment.revision)
        return Assigned(trial, NOTHING, experiment)
    is_control = drawn(f"arm\0{experiment.id}", unit) < 0.5
    trial = Trial(
        id=experiment.id, arm="control" if is_control else "candidate", unit=unit, revision=experiment.revision
    )
    return _given(trial, experiment.control if is_control else experiment.candidate, experiment)


def _given(trial: Trial, change: Change, experiment: Running | None = None) -> Assigned:
    is_told = change.instruction is not None
    return Assigned(msgspec.structs.replace(trial, instructed=is_told), change, experiment)


def _named(unit: Unit, task: TaskRef) -> str:
    # A tenant's unit is nobody else's, whatever both call it.
    if unit == "conversation" and task.conversation:
        return f"{task.tenant}\0c\0{task.conversation}"
    if unit == "user" and task.tags.get(USER_TAG):
        return f"{task.tenant}\0u\0{task.tags[USER_TAG]}"
    return f"{task.tenant}\0t\0{task.id}"


def _hash(text: str) -> str:
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()
