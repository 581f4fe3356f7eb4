"""Which rank of a model applies to a task: the one earned where the task is, or else its overall one. Pure.

One rule: what was earned for a tenant goes before what was earned for all, and both before the overall rank.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from collegium_contracts.modelstate import EarnedRank
from collegium_contracts.parts import Rank
from collegium_contracts.state import ModelRecord


def earned(model: ModelRecord, tenant: str, domain: str) -> Rank | None:
    """Returns the rank that was earned exactly here, none where none was."""
    for one in model.earned:
        if one.domain == domain and one.tenant == tenant:
            return one.rank
    return None


def applying(model: ModelRecord, tenant: str, domain: str) -> Rank:
    """Returns the rank that applies to a tenant's tasks in a domain."""
    if not model.earned:
        return model.rank
    return (earned(model, tenant, domain) if tenant else None) or earned(model, "", domain) or model.rank


def as_ranked(model: ModelRecord, tenant: str, domain: str) -> ModelRecord:
    """Returns a model with the rank that applies to a tenant's tasks in a domain; most are returned as they are."""
    if not model.earned:
        return model
    rank = applying(model, tenant, domain)
    return model if rank == model.rank else msgspec.structs.replace(model, rank=rank)


def with_earned(standing: Iterable[EarnedRank], domain: str, tenant: str, rank: Rank | None) -> list[EarnedRank]:
    """Returns earned ranks with one of them set, or taken away (none), in an order that does not depend on history."""
    kept = [one for one in standing if (one.domain, one.tenant) != (domain, tenant)]
    if rank is not None:
        kept.append(EarnedRank(domain=domain, rank=rank, tenant=tenant))
    return sorted(kept, key=lambda one: (one.tenant, one.domain))
