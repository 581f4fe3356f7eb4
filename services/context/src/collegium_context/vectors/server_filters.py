"""Filters as a Qdrant server takes them; the tenant's condition is put into every one here, and nowhere else."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from collegium_context.vectors.interface import Between, Equals, Where
from collegium_context.vectors.keys import TENANT_FIELD


def of_tenant(tenant: str, where: Where | None) -> models.Filter:
    """Returns the filter of a question about one tenant's points."""
    must: list[Any] = [models.FieldCondition(key=TENANT_FIELD, match=models.MatchValue(value=tenant))]
    must_not: list[Any] = []
    if where is not None:
        must += [_condition(one) for one in where.must]
        must_not += [_condition(one) for one in where.must_not]
    return models.Filter(must=must, must_not=must_not or None)


def _condition(one: Equals | Between) -> Any:
    if isinstance(one, Between):
        return models.FieldCondition(key=one.field, range=models.Range(gte=one.low, lte=one.high))
    any_of: list[Any] = [
        models.FieldCondition(key=one.field, match=models.MatchValue(value=value)) for value in one.values
    ]
    return any_of[0] if len(any_of) == 1 else models.Filter(should=any_of)
