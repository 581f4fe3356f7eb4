"""Tenants, projects, keys, limits and budgets over HTTP.

Who may call a route stands in roles.py and is checked before it (admin_guard); here every question is narrowed to what
the asker reaches. One rule: a member never learns whether something of another tenant exists.
"""

from __future__ import annotations

from typing import Any

from collegium_contracts import identity as i
from collegium_contracts import requests as q
from collegium_contracts import subjects as s
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import decode_tenant, parse
from collegium_gateway.asking import ask_billing
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.operating import identity_requests as bodies
from collegium_gateway.operating.budget_views import BudgetView, budget_view, standings_of
from collegium_gateway.tasks.views import rfc3339

MAX_BODY_BYTES = 64 * 1024


class IdentityDoor:
    """The routes about who may do what."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        tenants, keys, projects, budgets = (f"/v1/admin/{name}" for name in ("tenants", "keys", "projects", "budgets"))
        return [
            Route(tenants, self._tenants, methods=["GET"]),
            Route(tenants, self._create_tenant, methods=["POST"]),
            Route(f"{tenants}/{{id}}", self._tenant, methods=["GET"]),
            Route(f"{tenants}/{{id}}", self._change_tenant, methods=["PATCH"]),
            Route(f"{tenants}/{{id}}", self._delete_tenant, methods=["DELETE"]),
            Route(f"{tenants}/{{id}}/suspend", self._suspend, methods=["POST"]),
            Route(f"{tenants}/{{id}}/resume", self._resume, methods=["POST"]),
            Route(f"{tenants}/{{id}}/limits", self._tenant_limits, methods=["GET", "PUT", "DELETE"]),
            Route(projects, self._projects, methods=["GET"]),
            Route(projects, self._create_project, methods=["POST"]),
            Route(f"{projects}/{{tenant}}/{{id}}/archive", self._archive, methods=["POST"]),
            Route(f"{projects}/{{tenant}}/{{id}}/restore", self._restore, methods=["POST"]),
            Route(keys, self._keys, methods=["GET"]),
            Route(keys, self._create_key, methods=["POST"]),
            Route(f"{keys}/{{id}}", self._key, methods=["GET"]),
            Route(f"{keys}/{{id}}/revoke", self._revoke_key, methods=["POST"]),
            Route(f"{keys}/{{id}}/rotate", self._rotate_key, methods=["POST"]),
            Route(f"{keys}/{{id}}/limits", self._key_limits, methods=["GET", "PUT", "DELETE"]),
            Route(budgets, self._budgets, methods=["GET"]),
            Route(f"{budgets}/{{tenant}}/{{id}}", self._budget, methods=["GET"]),
            Route(f"{budgets}/{{tenant}}/{{id}}", self._set_budget, methods=["PUT"]),
            Route(f"{budgets}/{{tenant}}/{{id}}", self._delete_budget, methods=["DELETE"]),
        ]

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need("admin")
        return principal

    async def _body(self, request: Request) -> bytes:
        return await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES)

    async def _tenants(self, request: Request) -> Response:
        question = q.TenantList(tenant=self._principal(request).within(None))
        reply = await ask_billing(self._platform, s.SVC_BILLING_TENANT_LIST, question, q.TenantsReply)
        return json_reply({"data": [self._tenant_view(row) for row in reply.tenants]})

    async def _create_tenant(self, request: Request) -> Response:
        self._principal(request)
        body = parse(decode_tenant, await self._body(request))
        question = q.TenantCreate(tenant=body.id, tier=body.tier)
        reply = await ask_billing(self._platform, s.SVC_BILLING_TENANT_CREATE, question, q.TenantsReply)
        return json_reply(self._tenant_view(reply.tenants[0]), 201)

    async def _tenant(self, request: Request) -> Response:
        return json_reply(self._tenant_view(await self._tenant_row(request)))

    async def _tenant_row(self, request: Request) -> q.TenantRow:
        question = q.TenantList(tenant=self._principal(request).within(request.path_params["id"]))
        reply = await ask_billing(self._platform, s.SVC_BILLING_TENANT_LIST, question, q.TenantsReply)
        return reply.tenants[0]

    async def _change_tenant(self, request: Request) -> Response:
        body = parse(bodies.decode_tenant_patch, await self._body(request))
        if body == bodies.TenantPatch():
            raise ApiError("invalid_value", "say what is to change: tier, cache_stale, pool or learning", param="tier")
        return await self._change(
            request,
            tier=body.tier,
            stale_answers=body.cache_stale,
            pool=body.pool,
            collects=body.learning_collect,
            grants=body.learning_grants,
        )

    async def _delete_tenant(self, request: Request) -> Response:
        return await self._change(request, state="deleted")

    async def _suspend(self, request: Request) -> Response:
        return await self._change(request, state="suspended")

    async def _resume(self, request: Request) -> Response:
        return await self._change(request, state="active")

    async def _change(self, request: Request, **changes: Any) -> Response:
        self._principal(request)
        question = i.TenantChange(tenant=request.path_params["id"], **changes)
        reply = await ask_billing(self._platform, s.SVC_BILLING_TENANT_CHANGE, question, q.TenantsReply)
        return json_reply(self._tenant_view(reply.tenants[0]))

    async def _tenant_limits(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            row = await self._tenant_row(request)
            return json_reply({"tenant": row.id, "key": None, "limits": bodies.limits_view(row.limits)})
        tenant = self._principal(request).within(request.path_params["id"])
        assert tenant is not None, "the path names one"
        return await self._set_limits(request, tenant=tenant)

    async def _key_limits(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            row = await self._key_row(request)
            return json_reply({"tenant": row.tenant, "key": row.id, "limits": bodies.limits_view(row.limits)})
        return await self._set_limits(request, key_id=request.path_params["id"])

    async def _set_limits(self, request: Request, tenant: str = "", key_id: str = "") -> Response:
        principal = self._principal(request)
        limits = None
        if request.method == "PUT":
            limits = bodies.limits_of(parse(bodies.decode_limits, await self._body(request)))
        question = i.LimitsSet(tenant=tenant, key_id=key_id, limits=limits, reach=principal.reach)
        reply = await ask_billing(self._platform, s.SVC_BILLING_LIMITS_SET, question, i.LimitsReply)
        shown = {"tenant": reply.tenant, "key": reply.key_id or None, "limits": bodies.limits_view(reply.limits)}
        return json_reply(shown)

    async def _projects(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.query_params.get("tenant") or None)
        question = i.ProjectList(tenant=tenant)
        reply = await ask_billing(self._platform, s.SVC_BILLING_PROJECT_LIST, question, i.ProjectsReply)
        return json_reply({"data": [_project(row) for row in reply.projects]})

    async def _create_project(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(bodies.decode_project, await self._body(request))
        question = i.ProjectCreate(tenant=principal.within(body.tenant) or "", project=body.id, name=body.name)
        reply = await ask_billing(self._platform, s.SVC_BILLING_PROJECT_CREATE, question, i.ProjectsReply)
        return json_reply(_project(reply.projects[0]), 201)

    async def _archive(self, request: Request) -> Response:
        return await self._set_archived(request, archived=True)

    async def _restore(self, request: Request) -> Response:
        return await self._set_archived(request, archived=False)

    async def _set_archived(self, request: Request, *, archived: bool) -> Response:
        tenant = self._principal(request).within(request.path_params["tenant"]) or ""
        question = i.ProjectArchive(tenant=tenant, project=request.path_params["id"], archived=archived)
        reply = await ask_billing(self._platform, s.SVC_BILLING_PROJECT_ARCHIVE, question, i.ProjectsReply)
        return json_reply(_project(reply.projects[0]))

    async def _keys(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.query_params.get("tenant") or None)
        reply = await ask_billing(self._platform, s.SVC_BILLING_KEY_LIST, q.KeyList(tenant=tenant), q.KeysReply)
        return json_reply({"data": [_key(row) for row in reply.keys]})

    async def _key(self, request: Request) -> Response:
        return json_reply(_key(await self._key_row(request)))

    async def _key_row(self, request: Request) -> q.KeyRow:
        question = q.KeyList(tenant=self._principal(request).within(None), key_id=request.path_params["id"])
        reply = await ask_billing(self._platform, s.SVC_BILLING_KEY_LIST, question, q.KeysReply)
        return reply.keys[0]

    async def _create_key(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(bodies.decode_key, await self._body(request))
        question = q.KeyCreate(
            tenant=principal.within(body.tenant) or "",
            project=body.project,
            scopes=body.scopes,
            name=body.name,
            role=body.role,
            models=body.models,
            expires_at_ms=bodies.moment_ms(body.expires_at, "expires_at"),
            limits=bodies.limits_of(body.limits),
            budget=bodies.budget_of(body.budget, body.tenant, "") if body.budget is not None else None,
            reach=principal.reach,
        )
        reply = await ask_billing(self._platform, s.SVC_BILLING_KEY_CREATE, question, q.KeysReply)
        return json_reply({**_key(reply.keys[0]), "key": reply.secret_key}, 201)

    async def _revoke_key(self, request: Request) -> Response:
        question = q.KeyRevoke(key_id=request.path_params["id"], reach=self._principal(request).reach)
        reply = await ask_billing(self._platform, s.SVC_BILLING_KEY_REVOKE, question, q.KeysReply)
        return json_reply(_key(reply.keys[0]))

    async def _rotate_key(self, request: Request) -> Response:
        principal = self._principal(request)
        content = await self._body(request)
        body = parse(bodies.decode_rotate_key, content) if content else bodies.RotateKeyRequest()
        question = i.KeyRotate(
            key_id=request.path_params["id"],
            grace_seconds=bodies.seconds_of(body.grace, "grace"),
            reach=principal.reach,
        )
        reply = await ask_billing(self._platform, s.SVC_BILLING_KEY_ROTATE, question, q.KeysReply)
        return json_reply({**_key(reply.keys[0]), "key": reply.secret_key, "follows": question.key_id}, 201)

    async def _budgets(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.query_params.get("tenant") or None)
        reply = await ask_billing(
            self._platform, s.SVC_BILLING_BUDGET_LIST, i.BudgetList(tenant=tenant), i.BudgetsReply
        )
        return json_reply({"data": await self._shown(reply.budgets)})

    async def _budget(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.path_params["tenant"])
        question = i.BudgetList(tenant=tenant, budget=request.path_params["id"])
        reply = await ask_billing(self._platform, s.SVC_BILLING_BUDGET_LIST, question, i.BudgetsReply)
        return json_reply((await self._shown(reply.budgets))[0])

    async def _shown(self, rows: list[i.BudgetRow]) -> list[BudgetView]:
        standings = await standings_of(self._platform, {row.tenant for row in rows})
        return [budget_view(row, standings.get((row.tenant, row.budget.id))) for row in rows]

    async def _set_budget(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.path_params["tenant"]) or ""
        body = parse(bodies.decode_budget, await self._body(request))
        question = bodies.budget_of(body, tenant, request.path_params["id"])
        reply = await ask_billing(self._platform, s.SVC_BILLING_BUDGET_SET, question, i.BudgetsReply)
        return json_reply(budget_view(reply.budgets[0]))

    async def _delete_budget(self, request: Request) -> Response:
        tenant = self._principal(request).within(request.path_params["tenant"]) or ""
        question = i.BudgetDelete(tenant=tenant, budget=request.path_params["id"])
        reply = await ask_billing(self._platform, s.SVC_BILLING_BUDGET_DELETE, question, i.BudgetsReply)
        return json_reply(budget_view(reply.budgets[0]))

    def _tenant_view(self, row: q.TenantRow) -> dict[str, Any]:
        tier = self._platform.settings.tiers.get(row.tier)
        quotas = None
        if tier is not None:
            names = ("queries_per_day", "models_max", "concurrency", "storage_bytes", "weight", "features")
            quotas = {name: getattr(tier, name) for name in names}
        return {
            "id": row.id,
            "tier": row.tier,
            "state": row.state,
            "created_at": rfc3339(row.created_at_ms),
            "keys": row.keys,
            "projects": row.projects,
            "limits": bodies.limits_view(row.limits),
            "quotas": quotas,
            "cache": {"stale": row.stale_answers},
            "pool": row.pool or None,
            "learning": {
                "collect": row.collects_since_ms > 0,
                "since": rfc3339(row.collects_since_ms) if row.collects_since_ms else None,
                "grants": row.grants,
            },
        }


def _project(row: i.ProjectRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "name": row.name,
        "created_at": rfc3339(row.created_at_ms),
        "archived_at": _time(row.archived_at_ms),
        "keys": row.keys,
    }


def _key(row: q.KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "project": row.project,
        "name": row.name,
        "scopes": row.scopes,
        "role": row.role or None,
        "models": row.models,
        "limits": bodies.limits_view(row.limits),
        "created_at": rfc3339(row.created_at_ms),
        "expires_at": _time(row.expires_at_ms or None),
        "last_used_at": _time(row.last_used_at_ms),
        "revoked_at": _time(row.revoked_at_ms),
        "rotated_to": row.rotated_to or None,
    }


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
