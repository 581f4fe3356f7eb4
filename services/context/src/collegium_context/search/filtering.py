"""What a client filters by, as the vector store takes it. Pure.

One rule: a filter is never dropped; what cannot be asked for is refused.
"""

from __future__ import annotations

from collegium_contracts.knowledge import SearchFilters

from collegium_context.documents.naming import facet
from collegium_context.vectors.interface import Between, Equals, Where

FACETS, ADDED = "facets", "added"
VALUES_MAX = 200


def where_of(tenant: str, filters: SearchFilters) -> Where | None:
    """Returns the filter, or none where everything is meant."""
    must: list[Equals | Between] = []
    if filters.documents:
        must.append(Equals(FACETS, tuple(facet(tenant, "document", one) for one in filters.documents)))
    if filters.project is not None:
        must.append(Equals(FACETS, (facet(tenant, "project", filters.project),)))
    must += [Equals(FACETS, (facet(tenant, "tag", tag),)) for tag in filters.tags]
    for name, wanted in filters.fields.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        must.append(Equals(FACETS, tuple(facet(tenant, f"field:{name}", value) for value in values)))
    if filters.from_ms is not None or filters.to_ms is not None:
        must.append(Between(ADDED, filters.from_ms, filters.to_ms))
    must_not = [Equals(FACETS, (facet(tenant, "tag", tag),)) for tag in filters.not_tags]
    return Where(tuple(must), tuple(must_not)) if must or must_not else None


def problem_of(filters: SearchFilters) -> str:
    """Says what is wrong with a filter; empty where nothing is."""
    if any(isinstance(wanted, list) and not wanted for wanted in filters.fields.values()):
        return "a field's list of values is empty, and nothing would be found"
    values = sum(len(wanted) if isinstance(wanted, list) else 1 for wanted in filters.fields.values())
    if len(filters.documents) + len(filters.tags) + len(filters.not_tags) + values > VALUES_MAX:
        return f"a filter names at most {VALUES_MAX} documents, tags and values"
    return ""
