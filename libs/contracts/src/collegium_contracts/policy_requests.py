"""What is asked about routing policies, and what routers ask about a question before they choose by one.

One rule: no vector and nothing a person wrote is in an answer to an operator; figures and names of models and domains
are.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope

PolicyState = Literal["live", "superseded", "refused"]


class FeaturesRequest(Message, frozen=True, kw_only=True):
    """Asks context what a policy may see of a question; ``prompt`` seals its chat messages."""

    tenant: str
    prompt: Envelope


class FeaturesReply(Message, frozen=True, kw_only=True):
    """A question's row by ``embedder``, packed (learning's room ``routing``): in the open, and ``sealed`` to keep."""

    embedder: str
    row: bytes
    sealed: Envelope


class PoliciesAsk(Message, frozen=True, kw_only=True):
    """Asks for the policies that stand (``history`` false), or for those of one tenant, the newest first."""

    tenant: str | None = None
    history: bool = False
    limit: int = 50


class PolicyRollback(Message, frozen=True, kw_only=True):
    """Asks for an earlier version to take the standing one's place (0: none at all) and to stay until it is released.

    ``version`` none: the one that stood before.
    """

    tenant: str
    by: str
    version: int | None = None


class PolicyRelease(Message, frozen=True, kw_only=True):
    """Asks for a policy that an operator chose to be replaced by newer ones again."""

    tenant: str
    by: str


class ModelView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a policy expects of a model somewhere."""

    model: str
    rows: int
    quality: float
    sd: float
    cost_usd: float = 0.0
    seconds: float = 0.0


class Compared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a policy and the one before it would have reached on logged tasks, each with its 95 % interval.

    By self-normalised propensity scores and doubly robust; ``rows`` tasks, of which ``drawn`` were drawn to learn.
    """

    rows: int
    drawn: int
    snips: tuple[float, float, float]
    snips_before: tuple[float, float, float]
    robust: tuple[float, float, float]
    robust_before: tuple[float, float, float]
    gained: tuple[float, float, float]


class PolicyRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a policy, without its vectors. ``why`` says why it went live or did not.

    Of one that an operator chose: ``rolled_back_from`` is the version that it replaced, ``rolled_back_to`` the one that
    it is the same as. ``cycle`` is the round that made it.
    """

    tenant: str
    version: int
    created_at_ms: int
    state: PolicyState
    rows: int
    family: str
    tolerance: float
    why: str
    by: str = "evolution"
    embeds: bool = False
    pinned: bool = False
    rolled_back_from: int = 0
    rolled_back_to: int = 0
    everywhere: list[ModelView] = []
    domains: dict[str, list[ModelView]] = {}
    compared: Compared | None = None
    cycle: str = ""


class PoliciesReply(Message, frozen=True, kw_only=True):
    """Policies."""

    rows: list[PolicyRow]


PolicyRequest = FeaturesRequest | PoliciesAsk | PolicyRollback | PolicyRelease
PolicyReply = FeaturesReply | PoliciesReply
