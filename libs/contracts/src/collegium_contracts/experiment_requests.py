"""What is asked about experiments and flags, and what a look at one says.

One rule: what an operator is shown of an instruction is its label and its length.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.experiments import Act, Guardrails, Running, RunningFlag, State, Winner


class ExperimentCreate(Message, frozen=True, kw_only=True):
    """Asks for a draft; ``auto_stop``: it is concluded as soon as it is decided."""

    running: Running
    name: str
    by: str
    hypothesis: str = ""
    guardrails: Guardrails = Guardrails()
    level: float = 0.05
    margin: float = 0.02
    auto_stop: bool = False


class ExperimentsAsk(Message, frozen=True, kw_only=True):
    """Asks for experiments, the newest first: of a tenant (none: of all), in a state, or one by its id with a look."""

    tenant: str | None = None
    id: str = ""
    state: str = ""
    limit: int = 50


class ExperimentAct(Message, frozen=True, kw_only=True):
    """Asks to start, ramp (to ``share``), stop or conclude an experiment; ``tenant`` (none: any) is whose it must be.

    ``rollout``: the winning candidate's change becomes a flag for all.
    """

    id: str
    act: Act
    by: str
    tenant: str | None = None
    share: float = 0.0
    winner: Winner | None = None
    rollout: bool = False
    reason: str = ""


class FlagsAsk(Message, frozen=True, kw_only=True):
    """Asks for flags: of a tenant, or (none) of all."""

    tenant: str | None = None


class FlagSet(Message, frozen=True, kw_only=True):
    """Asks for a flag to stand as it says."""

    flag: RunningFlag
    by: str


class FlagSwitch(Message, frozen=True, kw_only=True):
    """Asks to kill a flag, to let it apply again, or to remove it; without a ``name`` all of a tenant's (empty: of the
    operator's, which stops everybody's) flags and experiments."""

    tenant: str
    to: Literal["killed", "on", "removed"]
    by: str
    name: str = ""
    reason: str = ""


class HoldoutSet(Message, frozen=True, kw_only=True):
    """Asks for the share of a tenant's units (empty: of everybody's) that nothing touches."""

    tenant: str
    share: float
    by: str


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an arm: all its tasks, and of how many units something is known.

    ``quality`` is the mean of first words (0 to 1) of units, ``p95_ms`` and ``cost_usd_picos`` are of all its tasks.
    """

    arm: str
    tasks: int = 0
    units: int = 0
    judged: int = 0
    quality: float | None = None
    errors: float | None = None
    refusals: float | None = None
    p95_ms: float | None = None
    cost_usd_picos: float | None = None


class Effect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much more of something the candidate has, with an interval that holds at every look.

    ``odds`` to one speak for its being worse than the guardrail allows, of ``needed``; ``breached``: it is.
    ``rests_on_one``: of quality, it would be, but without one of several tenants' words it is not.
    """

    metric: str
    units: int
    value: float
    low: float
    high: float
    guardrail: float = 0.0
    odds: float = 0.0
    needed: float = 0.0
    breached: bool = False
    rests_on_one: bool = False


class Interleaved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Questions that both arms answered: how often alike, and who was right where not.

    ``odds`` to one speak for the candidate.
    """

    asked: int = 0
    same: int = 0
    candidate_won: int = 0
    control_won: int = 0
    odds: float = 0.0


class Look(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an experiment at a moment; it may be taken at any moment, and as often as one likes.

    ``verdict``: the candidate is ``better``, ``as_good`` (surely not worse than the margin), ``worse``, or it is
    ``open``. ``mismatch_odds`` to one speak against units having been split evenly, which spoils the rest
    (``is_mismatched``). ``is_full``: no more units are counted.
    """

    at_ms: int
    verdict: Literal["open", "better", "as_good", "worse"] = "open"
    arms: list[ArmFigures] = []
    effects: list[Effect] = []
    mismatch_odds: float = 0.0
    is_mismatched: bool = False
    interleaved: Interleaved | None = None
    is_full: bool = False


class ExperimentChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of an experiment: when, by whom, what, and why."""

    at_ms: int
    by: str
    what: str
    reason: str = ""


class ExperimentRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An experiment as it is kept; to operators its instructions are shown by label and length alone."""

    running: Running
    name: str
    state: State
    created_at_ms: int
    by: str
    hypothesis: str = ""
    guardrails: Guardrails = Guardrails()
    level: float = 0.05
    margin: float = 0.02
    auto_stop: bool = False
    started_at_ms: int = 0
    ended_at_ms: int = 0
    winner: str = ""
    look: Look | None = None
    changes: list[ExperimentChange] = []


class FlagRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flag as it is kept; ``killed`` ones do not apply."""

    flag: RunningFlag
    killed: bool = False
    changed_at_ms: int = 0
    by: str = ""


class ExperimentsReply(Message, frozen=True, kw_only=True):
    """Experiments."""

    rows: list[ExperimentRow]


class FlagsReply(Message, frozen=True, kw_only=True):
    """Flags, and by tenant (empty: the operator) what else holds there."""

    rows: list[FlagRow]
    killed: list[str] = []
    holdouts: dict[str, float] = {}


ExperimentRequest = ExperimentCreate | ExperimentsAsk | ExperimentAct | FlagsAsk | FlagSet | FlagSwitch | HoldoutSet
ExperimentReply = ExperimentsReply | FlagsReply
