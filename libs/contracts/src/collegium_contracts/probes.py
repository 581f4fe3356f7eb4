"""Settled work asked again: what a second answer says of the first.

A probe is a task of its own, of the tenant whose question it asks again (``TaskRef.probe``). An ``audit`` asks the
teacher what somebody else has answered; a ``shadow`` asks somebody cheaper what the teacher has answered. One rule:
what is told of the two answers is whether they are the same, never what they say.
"""

from __future__ import annotations

from collegium_contracts.base import Message
from collegium_contracts.experiments import Trial
from collegium_contracts.parts import AttemptUsage, ProbeKind, Rank, TaskRef


class ProbeCompared(Message, frozen=True, kw_only=True):
    """A probe's answer was compared with the settled one (hop 12): ``same`` or not; none where one says nothing.

    ``task`` is the settled task, ``model``, ``rank``, ``plan`` and ``confidence`` those that it was settled with, and
    ``usage`` what the call that answered it took, none where it is not told. ``probe_model``, ``probe_rank`` and
    ``probe_usage`` are those of the ``probe``, a task's id. ``answer_type`` is how the answers were compared. ``trial``
    is the arm that the probe spoke for, where it asks for the other arm of an experiment.
    """

    task: TaskRef
    kind: ProbeKind
    probe: str
    at_ms: int
    model: str
    rank: Rank | str
    probe_model: str
    probe_rank: Rank
    probe_usage: AttemptUsage
    same: bool | None = None
    answer_type: str = "text"
    plan: str = ""
    confidence: float | None = None
    usage: AttemptUsage | None = None
    trial: Trial | None = None
