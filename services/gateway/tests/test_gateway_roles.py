"""The table of roles: each route, each role."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from collegium_contracts.identity import Reach, role_of
from collegium_gateway.errors import ApiError
from collegium_gateway.http.openapi import document
from collegium_gateway.identity import roles
from collegium_gateway.identity.admin_guard import guarded
from collegium_gateway.identity.principal import Principal
from starlette.responses import Response
from starlette.routing import Route

# What each route is to each role, written down a second time and by hand: who else than an owner may call it.
EXPECTED = {
    ("GET", "/v1/admin/models"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/models"): {"operator"},
    ("GET", "/v1/admin/models/{name}"): {"operator", "auditor", "member"},
    ("PATCH", "/v1/admin/models/{name}"): {"operator"},
    ("DELETE", "/v1/admin/models/{name}"): {"operator"},
    ("GET", "/v1/admin/tenants/{id}/erasure"): {"operator", "auditor"},
    ("POST", "/v1/admin/tenants/{id}/erasure"): set(),
    ("GET", "/v1/admin/tenants/{id}/data-keys"): {"operator", "auditor"},
    ("POST", "/v1/admin/tenants/{id}/data-keys/rotate"): {"operator"},
    ("GET", "/v1/admin/encryption"): {"operator", "auditor"},
    ("POST", "/v1/admin/encryption/rewrap"): {"operator"},
    ("GET", "/v1/admin/ledger/audit"): {"operator", "auditor"},
    ("GET", "/v1/admin/ledger/calls"): {"operator", "auditor"},
    ("POST", "/v1/admin/ledger/corrections"): {"operator"},
    ("GET", "/v1/admin/models/{name}/prices"): {"operator", "auditor"},
    ("POST", "/v1/admin/models/{name}/price"): {"operator"},
    ("POST", "/v1/admin/models/{name}/rank"): {"operator"},
    ("POST", "/v1/admin/models/{name}/rank/rollback"): {"operator"},
    ("POST", "/v1/admin/models/{name}/drain"): {"operator"},
    ("POST", "/v1/admin/models/{name}/resume"): {"operator"},
    ("GET", "/v1/admin/scoreboard"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/ranks"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/gaps"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/policies"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/policies/{tenant}"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/policies/{tenant}/rollback"): {"operator"},
    ("POST", "/v1/admin/policies/{tenant}/release"): {"operator"},
    ("GET", "/v1/admin/evolution"): {"operator", "auditor"},
    ("GET", "/v1/admin/evolution/{id}"): {"operator", "auditor"},
    ("POST", "/v1/admin/evolution/run"): {"operator"},
    ("DELETE", "/v1/admin/models/{name}/prices/{version}"): {"operator"},
    ("GET", "/v1/admin/search-index"): {"operator", "auditor"},
    ("GET", "/v1/admin/audit"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/audit/verify"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/audit/export"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/possible-spend"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/invoices"): {"operator"},
    ("GET", "/v1/admin/tenants/{id}/storage"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/tenants"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/tenants"): {"operator"},
    ("GET", "/v1/admin/tenants/{id}"): {"operator", "auditor", "member"},
    ("PATCH", "/v1/admin/tenants/{id}"): {"operator"},
    ("DELETE", "/v1/admin/tenants/{id}"): set(),
    ("POST", "/v1/admin/tenants/{id}/suspend"): {"operator"},
    ("POST", "/v1/admin/tenants/{id}/resume"): {"operator"},
    ("GET", "/v1/admin/tenants/{id}/limits"): {"operator", "auditor", "member"},
    ("PUT", "/v1/admin/tenants/{id}/limits"): {"operator"},
    ("DELETE", "/v1/admin/tenants/{id}/limits"): {"operator"},
    ("GET", "/v1/admin/projects"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/projects"): {"operator", "member"},
    ("POST", "/v1/admin/projects/{tenant}/{id}/archive"): {"operator", "member"},
    ("POST", "/v1/admin/projects/{tenant}/{id}/restore"): {"operator", "member"},
    ("GET", "/v1/admin/keys"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/keys"): {"operator", "member"},
    ("GET", "/v1/admin/keys/{id}"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/keys/{id}/revoke"): {"operator", "member"},
    ("POST", "/v1/admin/keys/{id}/rotate"): {"operator", "member"},
    ("GET", "/v1/admin/keys/{id}/limits"): {"operator", "auditor", "member"},
    ("PUT", "/v1/admin/keys/{id}/limits"): {"operator", "member"},
    ("DELETE", "/v1/admin/keys/{id}/limits"): {"operator", "member"},
    ("GET", "/v1/admin/budgets"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/budgets/{tenant}/{id}"): {"operator", "auditor", "member"},
    ("PUT", "/v1/admin/budgets/{tenant}/{id}"): {"operator"},
    ("DELETE", "/v1/admin/budgets/{tenant}/{id}"): {"operator"},
    ("GET", "/v1/admin/dead-letters"): {"operator", "auditor"},
    ("GET", "/v1/admin/dead-letters/{id}"): {"operator", "auditor"},
    ("POST", "/v1/admin/dead-letters/requeue"): {"operator"},
    ("POST", "/v1/admin/dead-letters/discard"): {"operator"},
    ("GET", "/v1/admin/tasks/{id}/ladder"): {"operator", "auditor"},
    ("GET", "/v1/admin/approvals"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/approvals/{id}"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/approvals/claim"): {"operator", "member"},
    ("POST", "/v1/admin/approvals/{id}/claim"): {"operator", "member"},
    ("POST", "/v1/admin/approvals/{id}/return"): {"operator", "member"},
    ("POST", "/v1/admin/approvals/{id}/move"): {"operator", "member"},
    ("POST", "/v1/admin/approvals/{id}/answer"): {"operator", "member"},
    ("GET", "/v1/admin/gates"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/gates/test"): {"operator"},
    ("GET", "/v1/admin/gates/report"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/experiments"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/experiments/{id}"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/flags"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/experiments"): {"operator", "member"},
    ("POST", "/v1/admin/experiments/holdout"): {"operator", "member"},
    ("POST", "/v1/admin/experiments/{id}/start"): {"operator", "member"},
    ("POST", "/v1/admin/experiments/{id}/ramp"): {"operator", "member"},
    ("POST", "/v1/admin/experiments/{id}/stop"): {"operator", "member"},
    ("POST", "/v1/admin/experiments/{id}/conclude"): {"operator", "member"},
    ("POST", "/v1/admin/flags/kill"): {"operator", "member"},
    ("POST", "/v1/admin/flags/revive"): {"operator", "member"},
    ("PUT", "/v1/admin/flags/{name}"): {"operator", "member"},
    ("DELETE", "/v1/admin/flags/{name}"): {"operator", "member"},
    ("POST", "/v1/admin/flags/{name}/kill"): {"operator", "member"},
    ("POST", "/v1/admin/flags/{name}/revive"): {"operator", "member"},
    ("GET", "/v1/admin/students"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/students"): {"operator", "member"},
    ("POST", "/v1/admin/students/register"): {"operator"},
    ("GET", "/v1/admin/students/{name}"): {"operator", "auditor", "member"},
    ("POST", "/v1/admin/students/{name}/retire"): {"operator", "member"},
    ("GET", "/v1/admin/samples"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/domains"): {"operator", "auditor", "member"},
    ("GET", "/v1/admin/domains/{id}"): {"operator", "auditor", "member"},
    ("PATCH", "/v1/admin/domains/{id}"): {"operator", "member"},
    ("POST", "/v1/admin/domains/{id}/merge"): {"operator", "member"},
    ("POST", "/v1/admin/distill"): {"member"},
    ("GET", "/v1/admin/distill/{id}"): {"member"},
    ("GET", "/v1/admin/tenants/{id}/gates"): {"operator", "auditor", "member"},
    ("PUT", "/v1/admin/tenants/{id}/gates"): {"operator"},
    ("DELETE", "/v1/admin/tenants/{id}/gates"): {"operator"},
}


def who(role: Any, *scopes: str, tenant: str = "operator") -> Principal:
    return Principal(tenant, "default", "somekey1", frozenset(scopes or ("admin",)), "free", role)


def may(role: Any, route: tuple[str, str]) -> bool:
    try:
        who(role).need_permission(roles.permission_of(*route))
    except ApiError as error:
        return (error.code, error.kind.http_status) != ("insufficient_role", 403)
    return True


@pytest.mark.parametrize("route", roles.ADMIN_ROUTES)
def test_each_route_is_for_the_roles_that_it_is_for(route: tuple[str, str]):
    allowed = {role for role in roles.ROLES if may(role, route)}
    assert allowed == EXPECTED[route] | {"owner"}


def test_the_table_has_the_routes_that_are_served_and_no_others():
    served = {
        (method.upper(), path)
        for path, methods in document()["paths"].items()
        for method in methods
        if path.startswith(roles.ADMIN_PREFIX)
    }
    assert set(roles.ADMIN_ROUTES) == served == set(EXPECTED)


def test_an_auditor_only_reads():
    assert {method for method, path in EXPECTED if may("auditor", (method, path))} == {"GET"}


def test_without_the_scope_no_role_helps():
    with pytest.raises(ApiError, match="'admin'") as refused:
        who("owner", "chat").need_permission("models.read")
    assert refused.value.code == "insufficient_scope"


async def test_a_route_without_a_row_cannot_be_served():
    async def nothing(_request: Any) -> Response:
        return Response()

    directory: Any = SimpleNamespace()
    with pytest.raises(LookupError, match="/v1/admin/secrets"):
        guarded([Route("/v1/admin/secrets", nothing, methods=["GET"])], directory)
    open_route = Route("/v1/models", nothing)
    assert guarded([open_route], directory) == [open_route]


@pytest.mark.parametrize(
    ("tenant", "role", "effective"),
    [
        ("operator", "", "owner"),
        ("operator", "auditor", "auditor"),
        ("operator", "member", "member"),
        ("operator", "root", "member"),
        ("acme", "", "member"),
        ("acme", "owner", "member"),
    ],
)
def test_beyond_one_tenant_reaches_only_who_belongs_to_the_operator(tenant: str, role: str, effective: str):
    assert role_of(tenant, role) == effective


def test_a_member_reaches_its_own_tenant_alone():
    member = who("member", "admin", "chat", tenant="acme")
    assert member.reach == Reach(tenant="acme", owners=False, scopes=["admin", "chat"])
    assert (member.within(None), member.within("acme")) == ("acme", "acme")
    with pytest.raises(ApiError) as refused:
        member.within("other")
    assert refused.value.code == "insufficient_role"


def test_roles_of_the_platform_reach_all():
    for role in ("owner", "operator", "auditor"):
        assert who(role).within(None) is None
        assert who(role).within("acme") == "acme"
        assert who(role).reach == Reach(owners=role == "owner")
    assert not who("owner", "chat").reaches_all


@pytest.mark.parametrize(
    "named", ["*", ">", "a.b", "x y", "A", "../x", "acme\n", "zz 1\r\nPUB audit.globex 5", "x" * 41]
)
def test_what_is_no_tenants_id_is_reached_by_nobody(named: str):
    with pytest.raises(ApiError) as refused:
        who("owner").within(named)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "tenant")
    with pytest.raises(ApiError) as refused:
        who("member", tenant="acme").within(named)
    assert refused.value.code == "insufficient_role", "a member hears nothing of what might be"
