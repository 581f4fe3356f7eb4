"""Experiments and flags: what is published of them.

An experiment gives units (conversations, users or tasks) one of two arms and compares what became of them; a flag gives
a share of units a change without comparing. What an arm changes is the model that is preferred, an instruction that is
put before the client's messages, the version of the tenant's policy, or the plan where the client left it open. Not
here: who is given which arm (trials.py), what is asked about them (experiment_requests.py), and what the numbers prove
(learning's room ``experiments``). One rule: an instruction stands sealed with its tenant's key wherever it stands, so
that whoever chooses models passes it on unread.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope
from collegium_contracts.ids import tenant_token

Kind = Literal["model", "prompt", "policy", "plan"]
TriedPlan = Literal["", "single", "panel", "cascade"]
Unit = Literal["task", "conversation", "user"]
State = Literal["draft", "running", "stopped", "rolled_back", "concluded"]
Act = Literal["start", "ramp", "stop", "conclude"]
Winner = Literal["control", "candidate"]
Arm = Literal["control", "candidate", "holdout", "flag"]

# What an instruction is sealed for, and how long (bytes) it may be: it is part of what every task of its arm costs.
INSTRUCTION_PURPOSE: Final = "experiment.instruction"
INSTRUCTION_BYTES_MAX: Final = 16 * 1024
KEY: Final = "experiments"
ARM_KEY_PREFIX: Final = "experiment-policy."
# What runs of a tenant, or of the operator, at a time; each is looked at for every task.
RUNNING_MAX: Final = 50


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which experiment (or flag) a task is part of, in which arm, as which unit (a hash); ``revision`` of it then.

    ``instructed``: its arm puts an instruction before the client's messages.
    """

    id: str
    arm: Arm
    unit: str = ""
    revision: int = 1
    instructed: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an arm changes; nothing where all is empty: as without the experiment.

    ``model`` is asked first, ``policy_version`` (0: the one that stands) orders the candidates, ``instruction`` is put
    before the client's messages (``instruction_bytes`` long; ``label`` is how its author calls the version). ``plan``
    is that of tasks whose client named none, a panel of ``members`` at most.
    """

    model: str = ""
    policy_version: int = 0
    instruction: Envelope | None = None
    instruction_bytes: int = 0
    label: str = ""
    plan: TriedPlan = ""
    members: int = 3

    @property
    def is_nothing(self) -> bool:
        """Whether the arm is as without the experiment."""
        return not self.model and not self.policy_version and self.instruction is None and not self.plan


NOTHING: Final = Change()


class Guardrails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By how much the candidate may surely be worse before it is taken back; above 1 a guardrail is off.

    ``quality`` is of the mean score, ``errors`` and ``refusals`` of their shares, ``slow`` of the share of tasks slower
    than the control's first p95 (.05 more means that twice as many are), ``cost`` of the control's mean, as a share.
    """

    quality: float = 0.05
    errors: float = 0.05
    refusals: float = 0.05
    slow: float = 0.05
    cost: float = 0.5


class Running(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An experiment as it runs; ``revision`` counts its changes. Units of the ``share`` get either arm evenly.

    Its surface: tasks of ``tenant`` (empty: of all), in ``domain`` (none: in all), that ask for ``model``.
    ``interleave`` is the share of its tasks whose question the other arm answers too, in shadow.
    """

    id: str
    kind: Kind
    control: Change
    candidate: Change
    tenant: str = ""
    domain: str | None = None
    model: str = "auto"
    unit: Unit = "conversation"
    share: float = 1.0
    interleave: float = 0.0
    revision: int = 1


class RunningFlag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flag as it applies: a change for a share of the units of a surface."""

    name: str
    kind: Kind
    change: Change
    tenant: str = ""
    domain: str | None = None
    model: str = "auto"
    unit: Unit = "conversation"
    share: float = 1.0
    revision: int = 1


class ExperimentSet(Message, frozen=True, kw_only=True):
    """What runs of a tenant, or of the operator (``tenant`` empty); a value of the bucket ``policy``.

    ``killed``: nothing of it applies; the operator's stops every tenant's. ``holdout`` is the share of units that no
    experiment and no flag touches. ``version`` grows with every change.
    """

    tenant: str
    version: int
    at_ms: int
    killed: bool = False
    holdout: float = 0.0
    experiments: list[Running] = []
    flags: list[RunningFlag] = []


def set_key(tenant: str) -> str:
    """Returns the key of what runs of a tenant (empty: of the operator) in the bucket ``policy``."""
    return f"{KEY}.{tenant_token(tenant)}" if tenant else KEY


def arm_key(tenant: str, version: int) -> str:
    """Returns the key under which a version of a tenant's policy stands while an experiment tries it."""
    return f"{ARM_KEY_PREFIX}{tenant_token(tenant)}.{version}"
