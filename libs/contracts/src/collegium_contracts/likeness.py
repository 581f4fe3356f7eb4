"""What the gateway asks context about answers to questions that are only alike: looking, keeping, forgetting.

Prompts and answers travel sealed. One rule: ``setting`` holds everything but the messages that an answer depends on,
as a hash; context adds the rest (project, knowledge, system messages) and compares within one such scope alone.
"""

from __future__ import annotations

from typing import Literal

from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Message
from collegium_contracts.state import CachedAnswer

LikenessDecision = Literal["serve", "explore", "call", "not_cached"]


class LikenessLook(Message, frozen=True, kw_only=True):
    """Asks for an answer that may stand for the one to this question; ``prompt`` seals JSON: a list of messages."""

    tenant: str
    project: str
    setting: bytes
    prompt: Envelope


class LikenessLooked(Message, frozen=True, kw_only=True):
    """What to do: ``serve`` gives ``answer``; ``explore`` and ``call`` ask a model, and its answer is to be kept.

    ``not_cached``: a question about a person, the present or a picture, whose answer is neither taken nor kept.
    """

    decision: LikenessDecision
    answer: CachedAnswer | None = None
    risk: float = 1.0


class LikenessKeep(Message, frozen=True, kw_only=True):
    """Gives an answer that a model just made, to be compared with what would have been served, and kept.

    ``explored`` says that an answer would have been served, and was asked for all the same.
    """

    tenant: str
    project: str
    setting: bytes
    prompt: Envelope
    answer: CachedAnswer
    expires_at_ms: int
    explored: bool = False


class LikenessKept(Message, frozen=True, kw_only=True):
    """Whether it was kept, and whether it was compared with a standing one and found the same."""

    kept: bool
    compared: bool = False
    same: bool = False


class LikenessForget(Message, frozen=True, kw_only=True):
    """Removes the answers of a tenant."""

    tenant: str


class LikenessForgotten(Message, frozen=True, kw_only=True):
    """How many there were."""

    entries: int


class LikenessStats(Message, frozen=True, kw_only=True):
    """Asks how the answers of a tenant fare."""

    tenant: str


class LikenessStatsReply(Message, frozen=True, kw_only=True):
    """Counts of a tenant: entries that stand, answers served, answers that would have been served and were compared
    with a new one instead, how many of those were another answer (with the interval of 95 % of that rate), and served
    ones that were said to be wrong.
    """

    entries: int
    served: int
    explored: int
    explored_wrong: int
    said_wrong: int = 0
    wrong_low: float = 0.0
    wrong_high: float = 1.0


LikenessRequest = LikenessLook | LikenessKeep | LikenessForget | LikenessStats
LikenessReply = LikenessLooked | LikenessKept | LikenessForgotten | LikenessStatsReply
