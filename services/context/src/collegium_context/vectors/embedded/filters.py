"""Filters as the engine takes them; the tenant's condition is put into every one of them here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_edge import FieldCondition, Filter, MatchAny, MatchValue, RangeFloat

from collegium_context.vectors.interface import AnyOf, Between, Condition, Equals, InvalidQuestionError, Where
from collegium_context.vectors.keys import TENANT_FIELD

_Condition = FieldCondition | Filter


def of_tenant(tenant: str, where: Where | None) -> Filter:
    """Returns the filter of a question about one tenant's points."""
    chosen = [FieldCondition(key=TENANT_FIELD, match=MatchValue(tenant))]
    return _filter(where or Where(), chosen)


def _filter(where: Where, must: Sequence[_Condition] = ()) -> Filter:
    all_of = [*must, *map(_condition, where.must)]
    none_of = [_condition(one) for one in where.must_not]
    return Filter(must=list(all_of) or None, must_not=list(none_of) or None)


def _condition(one: Condition) -> _Condition:
    if isinstance(one, Between):
        return FieldCondition(
            key=one.field,
            range=RangeFloat(
                gt=one.low if one.is_above else None,
                gte=None if one.is_above else one.low,
                lt=one.high if one.is_below else None,
                lte=None if one.is_below else one.high,
            ),
        )
    any_of = [_filter(where) for where in one.filters] if isinstance(one, AnyOf) else _matches(one)
    if not any_of:
        raise InvalidQuestionError("a condition names nothing that would be enough")
    return any_of[0] if len(any_of) == 1 else Filter(should=list(any_of))


def _matches(one: Equals) -> list[_Condition]:
    texts = [value for value in one.values if isinstance(value, str)]
    numbers = [value for value in one.values if isinstance(value, int) and not isinstance(value, bool)]
    any_of: list[_Condition] = [
        FieldCondition(key=one.field, match=MatchValue(value)) for value in one.values if isinstance(value, bool)
    ]
    if texts:
        any_of.append(FieldCondition(key=one.field, match=MatchAny(texts)))
    if numbers:
        any_of.append(FieldCondition(key=one.field, match=MatchAny(numbers)))
    return any_of
