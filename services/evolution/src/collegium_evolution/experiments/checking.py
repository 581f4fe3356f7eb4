"""What may be drafted, begun and changed. Pure.

One rule: what is refused is refused with a code and the field concerned, before anything is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from collegium_bus.errors import RequestRefusedError
from collegium_contracts.experiment_requests import ExperimentCreate, ExperimentRow, FlagRow
from collegium_contracts.experiments import RUNNING_MAX, Change, Kind, Running, RunningFlag
from collegium_contracts.trials import overlaps

AUTO: Final = "auto"
DRAFTS_MAX: Final = 200
# What all instructions of a tenant that apply may be together: they stand in one value of a bucket.
INSTRUCTIONS_BYTES_MAX: Final = 256 * 1024
# As few as can agree, as many as any panel may have.
PANEL_MIN: Final = 2
PANEL_MAX: Final = 9
NAME_CHARS_MAX: Final = 120
TEXT_CHARS_MAX: Final = 1_000


def check_draft(asked: ExperimentCreate, models: Collection[str], versions: Collection[int]) -> None:
    """Raises RequestRefusedError where an experiment could not be carried out; ``versions`` are its tenant's."""
    running = asked.running
    _share(running.share, "share")
    if not 0 <= running.interleave <= 1:
        raise _invalid("interleave is a share from 0 to 1", "interleave")
    if running.kind == "plan" and running.interleave:
        raise _invalid("a panel asks several already: plans are not interleaved", "interleave")
    if not 0.001 <= asked.level <= 0.2:
        raise _invalid("level is from .001 to .2", "level")
    if not 0 <= asked.margin <= 0.5:
        raise _invalid("margin is from 0 to .5", "margin")
    for name in asked.guardrails.__struct_fields__:
        if not 0 <= getattr(asked.guardrails, name) <= 100:
            raise _invalid("a guardrail is from 0 on; 1 or more (cost: 8) is never reached", f"guardrails.{name}")
    _text(asked.name, NAME_CHARS_MAX, "name")
    _text(asked.hypothesis, TEXT_CHARS_MAX, "hypothesis")
    surface = running.kind, running.model, running.tenant
    if running.candidate.is_nothing:
        raise _invalid("the candidate has to change something", "candidate")
    for field, change in (("control", running.control), ("candidate", running.candidate)):
        check_change(change, surface, models, versions, field)
    if running.control == running.candidate:
        raise _invalid("both arms are the same", "candidate")


def check_flag(flag: RunningFlag, models: Collection[str], versions: Collection[int]) -> None:
    """Raises RequestRefusedError where a flag could not be carried out."""
    _share(flag.share, "share")
    if flag.change.is_nothing:
        raise _invalid("a flag has to change something", "change")
    check_change(flag.change, (flag.kind, flag.model, flag.tenant), models, versions, "change")


def check_change(
    change: Change,
    surface: tuple[Kind, str, str],
    models: Collection[str],
    versions: Collection[int],
    field: str,
) -> None:
    """Raises RequestRefusedError where a change is none of its kind, or names what there is not."""
    kind, model, tenant = surface
    if model != AUTO and model not in models:
        raise RequestRefusedError("unknown_model", f"model {model[:128]!r} is not in the roster", "model")
    if kind != "prompt" and model != AUTO:
        text = "a named model is never swapped: models, policies and plans are tried on requests for auto"
        raise _invalid(text, "model")
    if kind not in ("model", "plan") and not tenant:
        raise _invalid(f"a {kind} is one tenant's: name it", "tenant")
    given = {
        "model": bool(change.model),
        "prompt": change.instruction is not None,
        "policy": bool(change.policy_version),
        "plan": bool(change.plan),
    }
    if any(is_given for name, is_given in given.items() if name != kind):
        raise _invalid(f"an arm of kind {kind} changes nothing but its {kind}", field)
    if not PANEL_MIN <= change.members <= PANEL_MAX:
        raise _invalid(f"a panel has {PANEL_MIN} to {PANEL_MAX} members", field)
    if change.model and change.model not in models:
        raise RequestRefusedError("unknown_model", f"model {change.model[:128]!r} is not in the roster", field)
    if change.policy_version and change.policy_version not in versions:
        text = f"{tenant} has no version {change.policy_version} of a policy; see collegium policy history"
        raise RequestRefusedError("not_found", text, field)


def check_start(row: ExperimentRow, running: Sequence[ExperimentRow], flags: Sequence[FlagRow]) -> None:
    """Raises RequestRefusedError where an experiment cannot begin now, beside what runs."""
    one = row.running
    if row.state != "draft":
        raise RequestRefusedError("experiment_state", f"experiment {one.id} is {row.state}; a draft can be started")
    for other in running:
        if overlaps(one, other.running):
            # Whose experiment of all tenants it is, its own tenant may be told alone.
            named = other.running.id if other.running.tenant == one.tenant or not one.tenant else "the operator's"
            text = f"another experiment ({named}) runs on a surface of {one.id}; stop it, or narrow this one"
            raise RequestRefusedError("experiment_conflict", text, "domain")
    mine = [other.running for other in running if other.running.tenant == one.tenant]
    if len(mine) >= RUNNING_MAX:
        raise RequestRefusedError("too_many_experiments", f"at most {RUNNING_MAX} run of a tenant at a time")
    changes = [change for other in (*mine, one) for change in (other.control, other.candidate)]
    changes += [flag.flag.change for flag in flags if flag.flag.tenant == one.tenant and not flag.killed]
    check_instructions(changes)


def check_instructions(changes: Sequence[Change]) -> None:
    """Raises RequestRefusedError where a tenant's instructions are too long together."""
    if sum(change.instruction_bytes for change in changes) > INSTRUCTIONS_BYTES_MAX:
        text = f"all instructions of a tenant that apply have at most {INSTRUCTIONS_BYTES_MAX} bytes together"
        raise RequestRefusedError("too_many_experiments", text)


def check_ramp(row: ExperimentRow, share: float) -> None:
    """Raises RequestRefusedError where an experiment's share cannot become another."""
    _share(share, "share")
    if row.state != "running":
        raise RequestRefusedError("experiment_state", f"experiment {row.running.id} is {row.state}, not running")
    if share < row.running.share:
        raise _invalid(
            "a share can only be raised, so that no unit changes sides; stop the experiment instead", "share"
        )


def surface_of(running: Running) -> str:
    """Says where an experiment runs."""
    domain = "all domains" if running.domain is None else f"domain {running.domain!r}"
    return f"{running.tenant or 'all tenants'}, {domain}, model {running.model}"


def _share(share: float, param: str) -> None:
    if not 0 < share <= 1:
        raise _invalid(f"{param} is above 0 and at most 1", param)


def _text(text: str, most: int, param: str) -> None:
    if len(text) > most or "\x00" in text:
        raise _invalid(f"{param} has at most {most} characters", param)


def _invalid(text: str, param: str) -> RequestRefusedError:
    return RequestRefusedError("invalid_value", text, param)
