"""Filters as the engine takes them; the tenant's condition is put into every one of them here, and nowhere else."""

from __future__ import annotations

from qdrant_edge import FieldCondition, Filter, MatchAny, MatchValue, RangeFloat

from collegium_context.vectors.interface import Between, Equals, Where
from collegium_context.vectors.keys import TENANT_FIELD

_Condition = FieldCondition | Filter


def of_tenant(tenant: str, where: Where | None) -> Filter:
    """Returns the filter of a question about one tenant's points."""
    must: list[_Condition] = [FieldCondition(key=TENANT_FIELD, match=MatchValue(tenant))]
    must_not: list[_Condition] = []
    if where is not None:
        must += [_condition(one) for one in where.must]
        must_not += [_condition(one) for one in where.must_not]
    return Filter(must=list(must), must_not=list(must_not) or None)


def _condition(one: Equals | Between) -> _Condition:
    if isinstance(one, Between):
        return FieldCondition(key=one.field, range=RangeFloat(gte=one.low, lte=one.high))
    texts = [value for value in one.values if isinstance(value, str)]
    numbers = [value for value in one.values if isinstance(value, int) and not isinstance(value, bool)]
    any_of = [FieldCondition(key=one.field, match=MatchValue(value)) for value in one.values if isinstance(value, bool)]
    if texts:
        any_of.append(FieldCondition(key=one.field, match=MatchAny(texts)))
    if numbers:
        any_of.append(FieldCondition(key=one.field, match=MatchAny(numbers)))
    return any_of[0] if len(any_of) == 1 else Filter(should=list(any_of))
