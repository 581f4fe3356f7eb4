"""Ranks and draining of models while the platform runs.

One rule: what was dispatched keeps the rank it was dispatched with and is finished; the next decision is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from collegium_bus.connection import Connection
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import subjects as s
from collegium_contracts.evolution import ModelSetReply, ModelSwitch, RankSet
from collegium_contracts.messages import Message, Rank
from collegium_contracts.ranks import earned, with_earned
from collegium_contracts.state import ModelRecord

from collegium_router.roster.roster_answers import RosterAnswers

# All models stand in one value; more domains and tenants than these share a model's overall rank.
EARNED_MAX: Final = 500


class ModelAnswers(RosterAnswers):
    """Answers ``svc.router.model``: RankSet and ModelSwitch."""

    def __init__(self, connection: Connection, models: Bucket, now_ms: Callable[[], int]) -> None:
        super().__init__(connection, models, now_ms, s.SVC_ROUTER_MODEL)

    def check(self, asked: Any) -> str:
        """Returns the name of the model; raises RequestRefusedError for any other question."""
        if not isinstance(asked, RankSet | ModelSwitch):
            raise RequestRefusedError("invalid_value", f"RankSet is asked here, not {type(asked).__name__}")
        if isinstance(asked, RankSet) and asked.domain is None and (asked.rank is None or asked.tenant):
            raise RequestRefusedError("invalid_value", "an overall rank is one of all tenants", "rank")
        return asked.model

    def change(self, asked: RankSet | ModelSwitch, standing: ModelRecord, now_ms: int) -> ModelRecord:
        """Returns the model with its rank, or drained or not."""
        if isinstance(asked, ModelSwitch):
            return switched(standing, drained=asked.drained)
        return ranked(standing, asked.rank, asked.domain, asked.tenant)

    def reply(
        self, asked: RankSet | ModelSwitch, before: ModelRecord, after: ModelRecord, version: int, now_ms: int
    ) -> Message:
        """Returns the roster's version and the rank that applied before."""
        rank: Rank | None = None
        if isinstance(asked, RankSet):
            rank = before.rank if asked.domain is None else earned(before, asked.tenant, asked.domain)
        return ModelSetReply(model=asked.model, version=version, is_new=after is not before, before=rank)


def ranked(standing: ModelRecord, rank: Rank | None, domain: str | None, tenant: str) -> ModelRecord:
    """Returns a model with a rank overall (``domain`` none) or in one domain; the same one where it has it.

    Raises RequestRefusedError where the model has earned too many ranks already.
    """
    if domain is None:
        return standing if rank is None or rank == standing.rank else msgspec.structs.replace(standing, rank=rank)
    if earned(standing, tenant, domain) == rank:
        return standing
    ranks = with_earned(standing.earned, domain, tenant, rank)
    if len(ranks) > EARNED_MAX:
        text = f"model {standing.name!r} has ranks of its own in {EARNED_MAX} domains; take some back first"
        raise RequestRefusedError("too_many_ranks", text, "domain")
    return msgspec.structs.replace(standing, earned=ranks)


def switched(standing: ModelRecord, *, drained: bool) -> ModelRecord:
    """Returns a model that gets work or not; the same one where it is so already."""
    return standing if standing.drained == drained else msgspec.structs.replace(standing, drained=drained)
