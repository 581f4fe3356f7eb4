"""A routing policy: what is expected of each model in each domain and for each question, and how much may be lost.

Evolution fits it and writes it to the bucket ``policy``, one value per tenant and one of the operator; routers watch
and apply it. It is numbers alone; arrays are bytes (little-endian). The vectors of earlier questions in it are content
of its tenant's: they go when the tenant is erased, and a policy of the operator has none. One rule: a reader that does
not know the layout of a policy keeps the last one that it knew.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.ids import tenant_token

LAYOUT: Final = 1
# Whose policy it is where it is no tenant's: the operator's, made of sums over all tenants.
OPERATOR: Final = "_operator"
# Where policies stand in the bucket ``policy``.
KEY_PREFIX: Final = "routing."

Family = Literal["mean", "domain", "full"]


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a model somewhere: how many outcomes, their shrunk mean, and how unsure that is (sd).

    ``cost_usd_picos`` and ``seconds`` are those of a call there, 0 where none was seen. ``beside_sd`` is how unsure its
    difference to the policy's ``reference`` is, which is less where both answered the same questions; 0: not known.
    """

    rows: int = 0
    mean: float = 0.0
    sd: float = 1.0
    cost_usd_picos: float = 0.0
    seconds: float = 0.0
    beside_sd: float = 0.0


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """How much less than ``strong`` loses by asking ``weak`` where the expected gain is at most ``gain_max``.

    Proven by ``rows`` outcomes at ``level``: the loss is at most ``loss_max``. ``weak_share`` of them went to ``weak``.
    """

    weak: str
    strong: str
    loss_max: float
    gain_max: float
    weak_share: float
    rows: int
    level: float


class RoutingPolicy(Message, frozen=True, kw_only=True):
    """A policy; the value under ``routing.<tenant>`` (OPERATOR's for all others) in the bucket ``policy``.

    ``models`` orders all that follows. ``domains`` holds a cell for each model; ``everywhere`` is for those without.
    ``linear`` (float32, models by 1 + row) adds what a question's row tells beyond its domain. ``bank`` (int8 times
    ``bank_scale``, questions by ``near_dimensions``) are earlier questions projected by ``projection`` (float32),
    ``bank_rest`` (float16, questions by models, NaN: not seen) how far each was from its domain's mean. ``stack``
    weighs the two. ``novel_below`` is the likeness (cosine) to the nearest of them under which a question is novel.

    ``family`` says how much of that is used, ``tolerance`` how much quality may be given away for a lower price, and
    ``caution`` (standard deviations) how sure that must be. ``embeds``: routers are to look at the embedding of
    questions, for the policy or for a later one. ``pinned``: an operator chose it; no newer one takes its place.
    ``reference`` is the model that others are compared with (empty: none), and ``trials`` are the shares of tasks given
    to models of which it is not sure yet whether they are good enough. ``in_play`` are those that cost less than the
    reference and may be good enough; shadows are mostly asked of them.
    """

    version: int
    tenant: str
    created_at_ms: int
    models: list[str]
    everywhere: list[Cell]
    domains: dict[str, list[Cell]] = {}
    rows: int = 0
    layout: int = LAYOUT
    family: Family = "domain"
    tolerance: float = 0.05
    caution: float = 0.67
    rows_min: int = 20
    embeds: bool = False
    embedder: str = ""
    linear: bytes = b""
    bank: bytes = b""
    bank_scale: float = 0.0
    bank_rest: bytes = b""
    near_dimensions: int = 0
    projection: bytes = b""
    stack: tuple[float, float] = (0.0, 0.0)
    novel_below: float = -1.0
    proofs: list[Proof] = []
    pinned: bool = False
    rolled_back_from: int = 0
    reference: str = ""
    trials: dict[str, float] = {}
    in_play: list[str] = []


def routing_key(tenant: str) -> str:
    """Returns the key of a tenant's policy, or of the operator's, in the bucket ``policy``."""
    return KEY_PREFIX + (tenant if tenant == OPERATOR else tenant_token(tenant))
