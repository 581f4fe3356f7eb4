"""What is asked of evolution, and what evolution asks of the router: scoreboards, ranks, rounds of learning, gaps.

Scores, ranks and gaps are a tenant's (``tenant`` is its id) or everybody's (``tenant`` is empty). One rule: nothing a
person wrote stands here but the names of models and domains.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.parts import Rank

RankGround = Literal[
    "better", "as_good_and_cheaper", "worse", "worse_lately", "operator", "rollback",
]  # fmt: skip
StepState = Literal["pending", "done", "none", "failed"]


class ScoreboardAsk(Message, frozen=True, kw_only=True):
    """Asks for scores as of now: of one tenant, or (empty) of all together; of one model or domain where named.

    ``half_life_days`` (0: the default) is after how long the past counts half.
    """

    tenant: str = ""
    model: str = ""
    domain: str | None = None
    half_life_days: float = 0.0


class BoardRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model in one domain at one rank: weighted counts, and means that are none where nothing was counted.

    ``quality`` is the mean of words of feedback (0 to 1), ``refusals`` the share of calls that the model declined,
    ``cost_usd_picos`` what a call cost. ``drift`` says what changed (``quality`` or ``success``), from what to what.
    """

    model: str
    domain: str
    rank: str
    calls: float
    judged: float
    quality: float | None = None
    success: float | None = None
    refusals: float | None = None
    duration_ms: float | None = None
    cost_usd_picos: float | None = None
    drift: str = ""
    drift_before: float | None = None
    drift_after: float | None = None
    drift_at_ms: int = 0


class ScoreboardReply(Message, frozen=True, kw_only=True):
    """Scores, those with most calls first."""

    at_ms: int
    half_life_days: float
    rows: list[BoardRow]
    is_cut: bool = False


class RankSet(Message, frozen=True, kw_only=True):
    """Asks the router to give a model a rank: overall (``domain`` none), or in one domain for one tenant or all.

    ``rank`` none takes an earned rank of that domain back, so that the overall one applies again. ``change`` names the
    decision; asking again changes nothing.
    """

    model: str
    rank: Rank | None
    domain: str | None = None
    tenant: str = ""
    change: str = ""


class ModelSwitch(Message, frozen=True, kw_only=True):
    """Asks the router to give a model no more work (``drained``), or to give it work again."""

    model: str
    drained: bool


class ModelSetReply(Message, frozen=True, kw_only=True):
    """The roster holds what was asked for; ``is_new``: it did not before. ``before`` is the rank that applied."""

    model: str
    version: int
    is_new: bool
    before: Rank | None = None


class RankChangeRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of a rank and why: the numbers are those that it was decided by.

    ``domain`` none: overall. ``after`` none: back to the overall rank. ``odds`` to one spoke for it where ``needed``
    were asked; ``by`` is a key's public id, or ``evolution``. ``state``: ``decided`` is not in the roster yet.
    """

    id: str
    model: str
    before: Rank | None
    after: Rank | None
    ground: RankGround
    at_ms: int
    domain: str | None = None
    tenant: str = ""
    by: str = ""
    reason: str = ""
    cycle: str = ""
    state: Literal["decided", "applied", "refused"] = "applied"
    odds: float = 0.0
    needed: float = 0.0
    wins: int = 0
    losses: int = 0
    ties: int = 0
    tenants: int = 0
    mean_score: float = 0.0
    price_ratio: float | None = None


class RankHistoryAsk(Message, frozen=True, kw_only=True):
    """Asks for changes of ranks, the newest first: of one model, or (empty) of all; of one tenant and of all where
    ``tenant`` is named, otherwise of everybody."""

    model: str = ""
    tenant: str | None = None
    limit: int = 100


class RankChangeAsk(Message, frozen=True, kw_only=True):
    """An operator gives a model a rank, as :class:`RankSet`."""

    model: str
    rank: Rank
    domain: str | None = None
    tenant: str = ""
    by: str = ""
    reason: str = ""


class RankRollbackAsk(Message, frozen=True, kw_only=True):
    """Takes the newest change of a model's rank back: of one domain and tenant, or of the overall rank."""

    model: str
    domain: str | None = None
    tenant: str = ""
    by: str = ""
    reason: str = ""


class RankHistoryReply(Message, frozen=True, kw_only=True):
    """Changes of ranks."""

    rows: list[RankChangeRow]


class CycleRun(Message, frozen=True, kw_only=True):
    """Asks for a round of learning now; ``by`` is a key's public id."""

    by: str = ""


class CyclesAsk(Message, frozen=True, kw_only=True):
    """Asks for rounds of learning, the newest first; ``id`` for one with its report."""

    id: str = ""
    limit: int = 20


class CycleStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a round and what came of it, in lines that hold names of models and domains and numbers alone.

    ``none``: there is nothing that does this step here.
    """

    name: str
    state: StepState
    lines: list[str] = []
    at_ms: int = 0


class CycleRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One round: why it began, what was settled until then, and its steps (in a list of rounds: their states alone)."""

    id: str
    state: Literal["running", "done", "failed"]
    cause: Literal["interval", "demand"]
    started_at_ms: int
    ended_at_ms: int = 0
    by: str = ""
    queries: int = 0
    steps: list[CycleStep] = []


class CyclesReply(Message, frozen=True, kw_only=True):
    """Rounds of learning."""

    rows: list[CycleRow]


class GapsAsk(Message, frozen=True, kw_only=True):
    """Asks for knowledge gaps, the worst first: of one tenant, or (empty) of all together."""

    tenant: str = ""
    limit: int = 50


class GapRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A domain in which answers are not good enough, however kindly one looks.

    ``accuracy`` is the mean of what is known of ``judged`` answers, ``upper`` its upper bound (95 %), below ``target``;
    ``size`` how many tasks it is of the last weeks, ``value_usd_picos`` what they cost a month. ``score`` ranks gaps:
    size × shortfall × value. ``signal`` says what the accuracy was told by. ``cluster`` (empty: all of it) is the
    discovered domain whose questions are meant, of those whose tasks named ``domain``.
    """

    id: str
    domain: str
    size: int
    judged: int
    accuracy: float
    upper: float
    target: float
    value_usd_picos: int
    score: float
    signal: Literal["feedback", "confidence", "pairs"]
    tenant: str = ""
    first_at_ms: int = 0
    last_at_ms: int = 0
    cluster: str = ""


class GapsReply(Message, frozen=True, kw_only=True):
    """Gaps."""

    rows: list[GapRow]
    at_ms: int = 0


EvolutionRequest = (
    ScoreboardAsk
    | RankSet
    | ModelSwitch
    | RankHistoryAsk
    | RankChangeAsk
    | RankRollbackAsk
    | CycleRun
    | CyclesAsk
    | GapsAsk
)
EvolutionReply = ScoreboardReply | ModelSetReply | RankHistoryReply | CyclesReply | GapsReply
