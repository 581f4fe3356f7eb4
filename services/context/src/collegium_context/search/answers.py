"""Answers kept for who asks the same again: one tenant's, of one state of its knowledge. Pure.

One rule: the knowledge version is part of the key, so that a change makes every older answer unreachable at once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from collegium_contracts.scope import Scope, one_tenant

ENTRIES_MAX = 2_000
ENTRIES_OF_TENANT_MAX = 500

V = TypeVar("V")


class Answers(Generic[V]):
    """The answers used last, by scope, knowledge version and question."""

    def __init__(self, entries_max: int = ENTRIES_MAX, of_tenant_max: int = ENTRIES_OF_TENANT_MAX) -> None:
        self._entries_max = entries_max
        self._of_tenant_max = of_tenant_max
        self._tenants: OrderedDict[str, OrderedDict[tuple[tuple[str, ...], int, bytes], V]] = OrderedDict()

    def get(self, scope: Scope, version: int, question: bytes) -> V | None:
        """Returns the kept answer to the same question; ``question`` is its digest with everything that shapes it."""
        kept = self._tenants.get(one_tenant(scope))
        found = kept.get((scope.path, version, question)) if kept is not None else None
        if kept is not None and found is not None:
            kept.move_to_end((scope.path, version, question))
            self._tenants.move_to_end(scope.tenant)
        return found

    def put(self, scope: Scope, version: int, question: bytes, answer: V) -> None:
        """Keeps an answer; lets go of the tenant's oldest, then of the tenant that was away longest."""
        kept = self._tenants.setdefault(one_tenant(scope), OrderedDict())
        kept[(scope.path, version, question)] = answer
        self._tenants.move_to_end(scope.tenant)
        while len(kept) > self._of_tenant_max:
            kept.popitem(last=False)
        while sum(map(len, self._tenants.values())) > self._entries_max:
            oldest = next(iter(self._tenants))
            self._tenants[oldest].popitem(last=False)
            if not self._tenants[oldest]:
                del self._tenants[oldest]

    def forget(self, tenant: str) -> None:
        """Lets go of everything of a tenant."""
        self._tenants.pop(tenant, None)
