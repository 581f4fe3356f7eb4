"""Filters as a Qdrant server takes them; the tenant's condition is put into every one here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from collegium_context.vectors.interface import AnyOf, Between, Condition, InvalidQuestionError, Where
from collegium_context.vectors.keys import TENANT_FIELD


def of_tenant(tenant: str, where: Where | None) -> models.Filter:
    """Returns the filter of a question about one tenant's points."""
    chosen = models.FieldCondition(key=TENANT_FIELD, match=models.MatchValue(value=tenant))
    return _filter(where or Where(), [chosen])


def _filter(where: Where, must: Sequence[Any] = ()) -> models.Filter:
    all_of = [*must, *map(_condition, where.must)]
    return models.Filter(must=all_of or None, must_not=[_condition(one) for one in where.must_not] or None)


def _condition(one: Condition) -> Any:
    if isinstance(one, Between):
        bounds = models.Range(
            gt=one.low if one.is_above else None,
            gte=None if one.is_above else one.low,
            lt=one.high if one.is_below else None,
            lte=None if one.is_below else one.high,
        )
        return models.FieldCondition(key=one.field, range=bounds)
    any_of: list[Any] = (
        [_filter(where) for where in one.filters]
        if isinstance(one, AnyOf)
        else [models.FieldCondition(key=one.field, match=models.MatchValue(value=value)) for value in one.values]
    )
    if not any_of:
        raise InvalidQuestionError("a condition names nothing that would be enough")
    return any_of[0] if len(any_of) == 1 else models.Filter(should=any_of)
