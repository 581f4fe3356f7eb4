"""Tenants, projects, keys and budgets in PostgreSQL: all SQL about who may do what.

Not here: what may be changed (tenancy, keys, budgets). One rule: a change is one transaction that has locked the
tenant's row and read what stands, so that every check holds over replicas.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import msgspec
from collegium_contracts.identity import BudgetRow, TenantState
from collegium_contracts.state import BudgetRecord, RateLimits

from collegium_billing.identity import tenancy
from collegium_billing.identity.keys import DEFAULT_PROJECT, Key, Tenant
from collegium_billing.identity.tenancy import Project, Standing

_encode_limits = msgspec.json.Encoder().encode
_decode_limits = msgspec.json.Decoder(RateLimits).decode


def _ms(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000)::int8"


def _at(parameter: str) -> str:
    return f"timestamptz 'epoch' + {parameter}::int8 * interval '1 millisecond'"


_INSERT_TENANT = f"""
INSERT INTO billing.tenants (id, tier, created_at, stale_answers, pool, gates, collects_since_ms)
VALUES ($1, $2, {_at("$3")}, $4, $5, $6, $7)
ON CONFLICT DO NOTHING RETURNING true
"""  # noqa: S608 - constants
_INSERT_PROJECT = f"""
INSERT INTO billing.projects (tenant, id, name, created_at) VALUES ($1, $2, $3, {_at("$4")})
ON CONFLICT DO NOTHING RETURNING true
"""  # noqa: S608 - constants
_INSERT_KEY = f"""
INSERT INTO billing.keys
    (id, tenant, secret_sha256, project, scopes, name, created_at, role, models, limits, expires_at, lineage)
VALUES ($1, $2, $3, $4, $5, $6, {_at("$7")}, $8, $9, $10, {_at("nullif($11::int8, 0)")}, $12)
ON CONFLICT DO NOTHING RETURNING true
"""  # noqa: S608 - constants
_SET_BUDGET = f"""
INSERT INTO billing.budgets
    (tenant, id, scope, of_id, limit_picos, window_kind, window_seconds, alert_percents, created_at, changed_at)
VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, {_at("$9")}, {_at("$9")})
ON CONFLICT (tenant, id) DO UPDATE
SET scope = excluded.scope, of_id = excluded.of_id, limit_picos = excluded.limit_picos,
    window_kind = excluded.window_kind, window_seconds = excluded.window_seconds,
    alert_percents = excluded.alert_percents, changed_at = excluded.changed_at
"""  # noqa: S608 - constants
_TENANT = f"""
SELECT id, tier, {_ms("created_at")} AS created_at_ms, state, limits, stale_answers, pool, gates, verified,
       collects_since_ms, grants,
       (SELECT count(*) FROM billing.keys WHERE tenant = tenants.id AND revoked_at IS NULL) AS keys,
       (SELECT count(*) FROM billing.projects WHERE tenant = tenants.id AND archived_at IS NULL) AS projects
FROM billing.tenants
"""  # noqa: S608 - constants
_KEY = f"""
SELECT id, tenant, secret_sha256, project, scopes, name, {_ms("created_at")} AS created_at_ms,
       {_ms("revoked_at")} AS revoked_at_ms, role, models, limits, coalesce({_ms("expires_at")}, 0) AS expires_at_ms,
       {_ms("last_used_at")} AS last_used_at_ms, coalesce(rotated_to, '') AS rotated_to,
       lineage
FROM billing.keys
"""  # noqa: S608 - constants
_PROJECT = f"""
SELECT id, tenant, name, {_ms("created_at")} AS created_at_ms, {_ms("archived_at")} AS archived_at_ms,
       (SELECT count(*) FROM billing.keys
        WHERE tenant = projects.tenant AND project = projects.id AND revoked_at IS NULL) AS keys
FROM billing.projects
"""  # noqa: S608 - constants
_BUDGET = f"""
SELECT tenant, id, scope, of_id, limit_picos::text AS limit_picos, window_kind, window_seconds, alert_percents,
       {_ms("changed_at")} AS changed_at_ms
FROM billing.budgets
"""  # noqa: S608 - constants


class IdentityStore:
    """Tenants and what is theirs, over a pool of connections."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def create_tenant(self, tenant: Tenant, first_key: Key | None = None) -> bool:
        """Adds a tenant with its default project, and its first key where there is one.

        False, and nothing added, where either stands.
        """
        async with self._pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            about = (tenant.id, tenant.tier, tenant.created_at_ms, tenant.stale_answers, tenant.pool)
            fields = (*about, list(tenant.gates), tenant.collects_since_ms)
            added = await connection.fetchval(_INSERT_TENANT, *fields)
            if added:
                await connection.execute(_INSERT_PROJECT, tenant.id, DEFAULT_PROJECT, "", tenant.created_at_ms)
            if added and (first_key is None or await _insert_key(connection, first_key)):
                await transaction.commit()
                return True
            await transaction.rollback()
            return False

    async def count_tenants(self) -> int:
        """Returns how many tenants there are, deleted ones included."""
        found: int = await self._pool.fetchval("SELECT count(*) FROM billing.tenants")
        return found

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """Returns a tenant, or none."""
        row = await self._pool.fetchrow(f"{_TENANT} WHERE id = $1", tenant_id)
        return None if row is None else _tenant(row)

    async def tenants(self, limit: int) -> list[Tenant]:
        """Returns the first tenants by id."""
        return [_tenant(row) for row in await self._pool.fetch(f"{_TENANT} ORDER BY id LIMIT $1", limit)]

    async def standing(self, tenant_id: str) -> Standing | None:
        """Returns a tenant with all that is its own, of one moment, or none."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await _standing(connection, tenant_id)

    @asynccontextmanager
    async def change(self, tenant_id: str, now_ms: int) -> AsyncGenerator[Change | None]:
        """Opens a change of a tenant, or gives none where there is no such tenant.

        The change is kept where the block ends, and nothing of it where the block raises, or where the tenant would
        become more than gateways can follow: that raises QuestionError.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM billing.tenants WHERE id = $1 FOR UPDATE", tenant_id)
            before = await _standing(connection, tenant_id)
            yield None if before is None else Change(connection, before, now_ms)
            after = await _standing(connection, tenant_id)
            if after is not None:
                tenancy.check_size(after, now_ms)

    async def key(self, key_id: str) -> Key | None:
        """Returns a key, or none."""
        row = await self._pool.fetchrow(f"{_KEY} WHERE id = $1", key_id)
        return None if row is None else _key(row)

    async def keys(self, tenant_id: str | None, limit: int | None = None) -> list[Key]:
        """Returns the keys of a tenant, or of all, by tenant and age."""
        where = "WHERE $1::text IS NULL OR tenant = $1 ORDER BY tenant, billing.keys.created_at, id LIMIT $2"
        return [_key(row) for row in await self._pool.fetch(f"{_KEY} {where}", tenant_id, limit)]

    async def projects(self, tenant_id: str | None, limit: int) -> list[Project]:
        """Returns the projects of a tenant, or of all."""
        where = "WHERE $1::text IS NULL OR tenant = $1 ORDER BY tenant, id LIMIT $2"
        return [Project(**row) for row in await self._pool.fetch(f"{_PROJECT} {where}", tenant_id, limit)]

    async def budgets(self, tenant_id: str | None, budget_id: str | None, limit: int) -> list[BudgetRow]:
        """Returns budgets: of a tenant or all, one id or all."""
        where = "WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR id = $2) ORDER BY tenant, id LIMIT $3"
        rows = await self._pool.fetch(f"{_BUDGET} {where}", tenant_id, budget_id, limit)
        return [
            BudgetRow(tenant=row["tenant"], budget=_budget(row), changed_at_ms=row["changed_at_ms"]) for row in rows
        ]

    async def note_used(self, key_ids: Sequence[str], at_ms: int) -> None:
        """Notes that keys were used up to a time; a later note stays."""
        await self._pool.execute(
            f"""
            UPDATE billing.keys SET last_used_at = greatest(last_used_at, {_at("$2")}) WHERE id = ANY($1::text[])
            """,  # noqa: S608 - a constant
            sorted(key_ids),
            at_ms,
        )


class Change:
    """One open change of a tenant: what stood before it, when it is made, and what may be written."""

    def __init__(self, connection: Any, before: Standing, now_ms: int) -> None:
        self.before = before
        self._connection = connection
        self._tenant = before.tenant.id
        self.now_ms = now_ms

    async def after(self) -> Standing:
        """Returns the tenant as this change leaves it."""
        standing = await _standing(self._connection, self._tenant)
        assert standing is not None, "its row is locked"
        return standing

    async def set_tenant(
        self,
        *,
        tier: str | None = None,
        state: TenantState | None = None,
        stale_answers: bool | None = None,
        pool: str | None = None,
        gates: Sequence[str] | None = None,
        verified: Mapping[str, int] | None = None,
        collects: bool | None = None,
        grants: Sequence[str] | None = None,
    ) -> None:
        """Sets what is given; deleting revokes every key."""
        await self._connection.execute(
            f"""
            UPDATE billing.tenants
            SET tier = coalesce($2, tier), state = coalesce($3, state),
                stale_answers = coalesce($5, stale_answers), pool = coalesce($6, pool),
                gates = coalesce($7, gates), verified = coalesce($8::jsonb, verified),
                collects_since_ms = CASE $9::boolean
                    WHEN true THEN coalesce(nullif(collects_since_ms, 0), $4) WHEN false THEN 0
                    ELSE collects_since_ms END,
                grants = coalesce($10, grants),
                state_at = CASE WHEN coalesce($3, state) = state THEN state_at ELSE {_at("$4")} END
            WHERE id = $1
            """,  # noqa: S608 - a constant
            self._tenant,
            tier,
            state,
            self.now_ms,
            stale_answers,
            pool,
            None if gates is None else list(gates),
            None if verified is None else json.dumps(verified),
            collects,
            None if grants is None else sorted(set(grants)),
        )
        if state == "deleted":
            await self._connection.execute(
                f"UPDATE billing.keys SET revoked_at = {_at('$2')} WHERE tenant = $1 AND revoked_at IS NULL",  # noqa: S608
                self._tenant,
                self.now_ms,
            )

    async def set_limits(self, lineage: str, limits: RateLimits | None) -> None:
        """Sets the limits of all keys of a lineage, or with an empty id of the tenant."""
        text = None if limits is None else _encode_limits(limits).decode()
        if lineage:
            await self._connection.execute(
                "UPDATE billing.keys SET limits = $2 WHERE id = $1 OR lineage = $1", lineage, text
            )
        else:
            await self._connection.execute("UPDATE billing.tenants SET limits = $2 WHERE id = $1", self._tenant, text)

    async def add_key(self, key: Key) -> bool:
        """Adds a key; false where its public id is taken."""
        return await _insert_key(self._connection, key)

    async def revoke_key(self, key_id: str) -> None:
        """Revokes a key; one revoked before keeps its time."""
        await self._connection.execute(
            f"UPDATE billing.keys SET revoked_at = coalesce(revoked_at, {_at('$2')}) WHERE id = $1",  # noqa: S608
            key_id,
            self.now_ms,
        )

    async def follow_key(self, key_id: str, successor: str, ends_at_ms: int) -> None:
        """Notes that a key has a successor, and when it ends itself."""
        await self._connection.execute(
            f"UPDATE billing.keys SET rotated_to = $2, expires_at = {_at('$3')} WHERE id = $1",  # noqa: S608
            key_id,
            successor,
            ends_at_ms,
        )

    async def add_project(self, project_id: str, name: str) -> bool:
        """Adds a project; false where it stands."""
        return await self._connection.fetchval(_INSERT_PROJECT, self._tenant, project_id, name, self.now_ms) is not None

    async def archive_project(self, project_id: str, *, archived: bool) -> None:
        """Archives a project, or takes it up again; one archived before keeps its time."""
        await self._connection.execute(
            f"""
            UPDATE billing.projects SET archived_at = CASE WHEN $3 THEN coalesce(archived_at, {_at("$4")}) END
            WHERE tenant = $1 AND id = $2
            """,  # noqa: S608 - a constant
            self._tenant,
            project_id,
            archived,
            self.now_ms,
        )

    async def set_budget(self, budget: BudgetRecord) -> None:
        """Sets a budget, new or standing."""
        fields = (budget.id, budget.scope, budget.of, str(budget.limit_picos), budget.window, budget.window_seconds)
        await self._connection.execute(_SET_BUDGET, self._tenant, *fields, budget.alert_percents, self.now_ms)

    async def delete_budget(self, budget_id: str) -> None:
        """Deletes a budget."""
        statement = "DELETE FROM billing.budgets WHERE tenant = $1 AND id = $2"
        await self._connection.execute(statement, self._tenant, budget_id)


async def _standing(connection: Any, tenant_id: str) -> Standing | None:
    row = await connection.fetchrow(f"{_TENANT} WHERE id = $1", tenant_id)
    if row is None:
        return None
    keys = await connection.fetch(f"{_KEY} WHERE tenant = $1 ORDER BY created_at, id", tenant_id)
    projects = await connection.fetch(f"{_PROJECT} WHERE tenant = $1 ORDER BY id", tenant_id)
    budgets = await connection.fetch(f"{_BUDGET} WHERE tenant = $1 ORDER BY id", tenant_id)
    return Standing(
        tenant=_tenant(row),
        keys=tuple(map(_key, keys)),
        projects=tuple(Project(**one) for one in projects),
        budgets=tuple(map(_budget, budgets)),
    )


async def _insert_key(connection: Any, key: Key) -> bool:
    fields = (key.id, key.tenant, key.secret_sha256, key.project, list(key.scopes), key.name, key.created_at_ms)
    limits = None if key.limits is None else _encode_limits(key.limits).decode()
    rights = (key.role, list(key.models), limits, key.expires_at_ms, key.lineage)
    return await connection.fetchval(_INSERT_KEY, *fields, *rights) is not None


def _tenant(row: asyncpg.Record) -> Tenant:
    fields = _with_limits(dict(row))
    fields["gates"], fields["verified"] = tuple(fields["gates"]), json.loads(fields["verified"])
    fields["grants"] = tuple(fields["grants"])
    return Tenant(**fields)


def _key(row: asyncpg.Record) -> Key:
    fields = _with_limits(dict(row))
    fields["scopes"], fields["models"] = tuple(fields["scopes"]), tuple(fields["models"])
    return Key(**fields)


def _with_limits(fields: dict[str, Any]) -> dict[str, Any]:
    text = fields["limits"]
    return fields | {"limits": None if text is None else _decode_limits(text)}


def _budget(row: asyncpg.Record) -> BudgetRecord:
    return BudgetRecord(
        id=row["id"],
        scope=row["scope"],
        of=row["of_id"],
        limit_picos=int(row["limit_picos"]),
        window=row["window_kind"],
        window_seconds=row["window_seconds"],
        alert_percents=list(row["alert_percents"]),
    )
