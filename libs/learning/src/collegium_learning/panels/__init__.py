"""Panels: which of several answers is given, and when enough were asked. Pure.

The interface is below. Rooms behind it: ``votes`` (votes, weights by reliability, the tally), ``stacking`` (a tally
that was learned), ``deciding`` (either), ``stopping`` (whether to ask on), and for learning: ``history`` (members'
shares), ``learning`` (from outcomes) and ``dawid_skene`` (from votes alone). What an answer says is the room
``answers``; how probably a result is right is the room ``confidence``.
"""

from collegium_learning.panels.deciding import Known, aggregate
from collegium_learning.panels.stacking import Learned, Stacked
from collegium_learning.panels.stopping import StoppingRule, asking_order, is_settled
from collegium_learning.panels.votes import NOTHING_KNOWN, Camp, Reliability, Tally, Vote

__all__ = [
    "NOTHING_KNOWN",
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
]
