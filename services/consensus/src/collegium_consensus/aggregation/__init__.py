"""Aggregation: which of several answers is given, and when enough were asked. Pure.

``votes`` (votes, weights, the tally) and ``stopping`` (whether to ask on). How probably the result is right is the
room ``confidence``.
"""

from collegium_consensus.aggregation.stopping import StoppingRule, is_settled
from collegium_consensus.aggregation.votes import NOTHING_KNOWN, Camp, Reliability, Tally, Vote, aggregate

__all__ = ["NOTHING_KNOWN", "Camp", "Reliability", "StoppingRule", "Tally", "Vote", "aggregate", "is_settled"]
