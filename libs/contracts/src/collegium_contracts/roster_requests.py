"""Models that operators add, change and remove while the platform runs: where they are, and what they were found to do.

What an operator said of a model travels as the JSON of one entry of ``models:`` (``spec``), read by the settings
wherever it is needed, so that both ways of naming a model accept the same. One rule: a key to an endpoint never travels
and never stands here; a spec names one that workers have in their own configuration.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.modelstate import RegisteredModel
from collegium_contracts.parts import Rank
from collegium_contracts.probing import ProbeFound
from collegium_contracts.students import StudentOf


class ModelAdd(Message, frozen=True, kw_only=True):
    """Asks the router to take a model into the roster once its endpoint was found to do what ``spec`` says.

    ``forced`` takes it whatever was found; ``by`` is a key's public id. ``student`` says whose student it is, if one
    tenant's; ``models_max`` and ``domain_max`` then bound the students of its tenant. Answered with a
    RegistrationReply.
    """

    spec: bytes
    by: str = ""
    forced: bool = False
    student: StudentOf | None = None
    models_max: int = 0
    domain_max: int = 0


class ModelChange(Message, frozen=True, kw_only=True):
    """Asks the router for another spec of a model that was added: the fields of ``changes`` (JSON) in place of its own,
    null for a field's default. What changes how it is called is probed as for a new one."""

    model: str
    changes: bytes
    by: str = ""
    forced: bool = False


class ModelRemove(Message, frozen=True, kw_only=True):
    """Asks the router to take an added model out of the roster; what it has in hand it finishes.

    ``owner`` (empty: nobody's in particular) takes it out only where it is that tenant's student; any other model of
    this name is not found.
    """

    model: str
    by: str = ""
    owner: str = ""


class ModelShow(Message, frozen=True, kw_only=True):
    """Asks the router what was said of an added model, and what it was found to do."""

    model: str


class RegistrationReply(Message, frozen=True, kw_only=True):
    """An added model as it stands; none where the model is the configuration's. ``version`` is the roster's."""

    model: str
    version: int
    is_new: bool = False
    registered: RegisteredModel | None = None
    rank: Rank = "student"


class EndpointProbe(Message, frozen=True, kw_only=True):
    """Asks a worker of a model's pool what its endpoints can do, by real calls that are booked under the task ``id``.

    ``spec`` says what it does, where it is, and at which prices its calls are booked.
    """

    id: str
    spec: bytes


class EndpointProbed(Message, frozen=True, kw_only=True):
    """What a worker found, and what its calls cost."""

    found: list[ProbeFound]
    calls: int = 0
    cost_usd_picos: int = 0


RosterRequest = ModelAdd | ModelChange | ModelRemove | ModelShow | EndpointProbe
RosterReply = RegistrationReply | EndpointProbed


def failing(found: list[ProbeFound]) -> list[ProbeFound]:
    """Returns the probes that speak against a registration."""
    return [one for one in found if one.state == "failed" and one.needed]


def told(found: list[ProbeFound]) -> str:
    """Says which probes failed, and how, in one line."""
    return "; ".join(f"{one.name}: {one.detail}" for one in found)


def fields_of(spec: bytes) -> dict[str, object]:
    """Returns a spec's fields; raises msgspec.DecodeError where it is no JSON object."""
    return msgspec.json.decode(spec, type=dict[str, object])
