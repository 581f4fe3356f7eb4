"""A scope is one tenant's, and a read without one does not run."""

from typing import Any

import pytest
from collegium_contracts.scope import AllTenants, Scope, ScopeError, one_tenant, tenant_of


def test_a_scope_narrows_and_names_its_tenant():
    scope = Scope("acme").at("conversation").at("turn")
    assert (tenant_of(scope), one_tenant(scope), scope.path) == ("acme", "acme", ("conversation", "turn"))
    assert tenant_of(AllTenants("a report")) is None


@pytest.mark.parametrize("tenant", ["", "*", ">", "a.b", "A", "acme ", "a" * 41, "../acme", "acme\n"])
def test_what_is_no_tenant_is_no_scope(tenant: str):
    with pytest.raises(ScopeError):
        Scope(tenant)


@pytest.mark.parametrize("scope", [None, "acme", AllTenants("operators")])
def test_a_read_of_one_tenant_takes_nothing_else(scope: Any):
    with pytest.raises(ScopeError):
        one_tenant(scope)


@pytest.mark.parametrize("scope", [None, "", "acme"])
def test_a_read_without_a_scope_does_not_run(scope: Any):
    with pytest.raises(ScopeError):
        tenant_of(scope)
