"""What a client filters by, as the vector store takes it. Pure.

One rule: a filter is never dropped; what cannot be asked for is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from collegium_contracts.knowledge import FieldTest, FieldValue, SearchFilters

from collegium_context.documents.naming import date_field, date_seconds, facet, number_field
from collegium_context.vectors.interface import AnyOf, Between, Condition, Equals, Where

FACETS, ADDED = "facets", "added"
# Each of them is a condition that the store tries on every point that it comes by.
VALUES_MAX = 200
# Beyond it a number is no longer told from its neighbours.
TIME_MAX = 2**53
DEPTH_MAX = 4


def where_of(tenant: str, filters: SearchFilters) -> Where | None:
    """Returns the filter, or none where everything is meant; ``filters`` have no problem."""
    where = _where(tenant, filters)
    return where if where.must or where.must_not else None


def _where(tenant: str, filters: SearchFilters) -> Where:
    must: list[Condition] = []
    if filters.documents:
        must.append(Equals(FACETS, tuple(facet(tenant, "document", one) for one in filters.documents)))
    if filters.project is not None:
        must.append(Equals(FACETS, (facet(tenant, "project", filters.project),)))
    must += [Equals(FACETS, (facet(tenant, "tag", tag),)) for tag in filters.tags]
    must_not: list[Condition] = [Equals(FACETS, (facet(tenant, "tag", tag),)) for tag in filters.not_tags]
    for name, wanted in filters.fields.items():
        if not isinstance(wanted, FieldTest):
            must.append(_one_of(tenant, name, wanted))
            continue
        if (between := _between(tenant, name, wanted)) is not None:
            must.append(between)
        if wanted.not_ is not None:
            must_not.append(_one_of(tenant, name, wanted.not_))
    if filters.from_ms is not None or filters.to_ms is not None:
        must.append(Between(ADDED, filters.from_ms, filters.to_ms))
    if filters.any_:
        must.append(AnyOf(tuple(_where(tenant, one) for one in filters.any_)))
    if filters.not_ is not None:
        must_not.append(AnyOf((_where(tenant, filters.not_),)))
    return Where(tuple(must), tuple(must_not))


def _one_of(tenant: str, name: str, wanted: FieldValue | list[FieldValue]) -> Equals:
    values = wanted if isinstance(wanted, list) else [wanted]
    return Equals(FACETS, tuple(facet(tenant, f"field:{name}", value) for value in values))


def _between(tenant: str, name: str, test: FieldTest) -> Between | None:
    low, high = _first(test.gt, test.gte), _first(test.lt, test.lte)
    if low is None and high is None:
        return None
    is_date = isinstance(low if low is not None else high, str)
    field = date_field(tenant, name) if is_date else number_field(tenant, name)
    return Between(field, _number(low), _number(high), is_above=test.gt is not None, is_below=test.lt is not None)


def _first(*bounds: float | str | None) -> float | str | None:
    return next((bound for bound in bounds if bound is not None), None)


def _number(bound: float | str | None) -> float | None:
    return date_seconds(bound) if isinstance(bound, str) else bound


def problem_of(filters: SearchFilters) -> str:
    """Says what is wrong with a filter; empty where nothing is."""
    values = 0
    for depth, one in _each(filters):
        if depth > DEPTH_MAX:
            return f"a filter is nested at most {DEPTH_MAX} deep"
        if depth > 1 and one == SearchFilters():
            return "a filter within a filter is empty, and everything or nothing would be found"
        if any(abs(bound) > TIME_MAX for bound in (one.from_ms or 0, one.to_ms or 0)):
            return "from_ms and to_ms are Unix milliseconds"
        for name, wanted in one.fields.items():
            if problem := _problem_of_field(wanted):
                return f"field {name[:128]!r}: {problem}"
            values += _values_of(wanted)
        values += len(one.documents) + len(one.tags) + len(one.not_tags) + len(one.any_)
        if values > VALUES_MAX:
            return f"a filter names at most {VALUES_MAX} documents, tags and values"
    return ""


def _each(filters: SearchFilters) -> Iterator[tuple[int, SearchFilters]]:
    """Yields a filter and those in it, each with its depth; not those below what is too deep."""
    stack = [(1, filters)]
    while stack:
        depth, one = stack.pop()
        yield depth, one
        if depth <= DEPTH_MAX:
            within = [*one.any_, *([one.not_] if one.not_ is not None else [])]
            stack += [(depth + 1, inner) for inner in within]


def _values_of(wanted: FieldValue | list[FieldValue] | FieldTest) -> int:
    if isinstance(wanted, FieldTest):
        return 1 + (_values_of(wanted.not_) if wanted.not_ is not None else 0)
    return len(wanted) if isinstance(wanted, list) else 1


def _problem_of_field(wanted: FieldValue | list[FieldValue] | FieldTest) -> str:
    if not isinstance(wanted, FieldTest):
        return "a list of values is empty, and nothing would be found" if wanted == [] else ""
    if wanted == FieldTest():
        return "say what it must be: gt, gte, lt, lte or not"
    if wanted.not_ == []:
        return "a list of values is empty"
    if (wanted.gt is not None and wanted.gte is not None) or (wanted.lt is not None and wanted.lte is not None):
        return "one bound on either side: gt or gte, lt or lte"
    return _problem_of_bounds(_first(wanted.gt, wanted.gte), _first(wanted.lt, wanted.lte))


def _problem_of_bounds(low: float | str | None, high: float | str | None) -> str:
    if low is not None and high is not None and isinstance(low, str) != isinstance(high, str):
        return "both bounds are numbers, or both are dates"
    for bound in (low, high):
        if isinstance(bound, str) and date_seconds(bound) is None:
            return "a bound is a number or a date (2026-05-01, 2026-05-01T12:00:00Z)"
    from_number, to_number = _number(low), _number(high)
    if from_number is not None and to_number is not None and from_number > to_number:
        return "its lower bound is above its upper one, and nothing would be found"
    return ""
