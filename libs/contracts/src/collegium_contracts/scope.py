"""Whose data may be read: a type that every reader of tenants' data takes.

A :class:`Scope` is one tenant's, and may be narrowed by a path (a conversation, a task). What operators read of all
tenants is asked for by name, as :class:`AllTenants`. One rule: there is no default; a read without a scope does not
type-check and does not run.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.errors import ContractError
from collegium_contracts.ids import TENANT_ID


class ScopeError(ContractError):
    """What was given is not the scope of a tenant."""

    code = "no_scope"


class Scope(msgspec.Struct, frozen=True):
    """One tenant's data, or what lies under a path of it; raises :class:`ScopeError` for what is no tenant's id."""

    tenant: str
    path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if TENANT_ID.match(self.tenant) is None:
            raise ScopeError("a scope is of one tenant, and this is not the id of one")

    def at(self, *path: str) -> Scope:
        """Narrows the scope; nothing widens one."""
        return Scope(self.tenant, (*self.path, *path))


class AllTenants(msgspec.Struct, frozen=True):
    """The data of all tenants, for operators; ``reason`` says where in the code that is decided."""

    reason: str


AnyScope = Scope | AllTenants


def tenant_of(scope: AnyScope) -> str | None:
    """Returns the tenant that a read is limited to; none for all. Raises :class:`ScopeError` for anything else."""
    if isinstance(scope, Scope):
        return scope.tenant
    if isinstance(scope, AllTenants):  # pyright: ignore[reportUnnecessaryIsInstance] - also where types are not checked
        return None
    raise ScopeError("a read needs a scope")


def one_tenant(scope: Scope) -> str:
    """Returns the tenant of a scope that must be one tenant's; raises :class:`ScopeError` for anything else."""
    if not isinstance(scope, Scope):  # pyright: ignore[reportUnnecessaryIsInstance] - also where types are not checked
        raise ScopeError("this is read for one tenant at a time, and needs its scope")
    return scope.tenant
