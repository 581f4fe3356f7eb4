"""Aggregation: which of several answers is given, and when enough were asked. Pure.

The interface is below. Rooms behind it: ``extraction`` (what an answer says, by its type), ``clusters`` (free text that
means the same), ``votes`` (votes, weights by reliability, the tally), ``stacking`` and ``forms`` (a tally that was
learned), ``deciding`` (either), ``stopping`` (whether to ask on), and for learning: ``history`` (members' shares),
``learning`` (from outcomes) and ``dawid_skene`` (from votes alone). How probably a result is right is the room
``confidence``.
"""

from collegium_consensus.aggregation.deciding import Known, aggregate
from collegium_consensus.aggregation.extraction import AnswerType, key_of
from collegium_consensus.aggregation.stacking import Learned, Stacked
from collegium_consensus.aggregation.stopping import StoppingRule, asking_order, is_settled
from collegium_consensus.aggregation.votes import NOTHING_KNOWN, Camp, Reliability, Tally, Vote

__all__ = [
    "NOTHING_KNOWN",
    "AnswerType",
    "Camp",
    "Known",
    "Learned",
    "Reliability",
    "Stacked",
    "StoppingRule",
    "Tally",
    "Vote",
    "aggregate",
    "asking_order",
    "is_settled",
    "key_of",
]
