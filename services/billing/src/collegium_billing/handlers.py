"""Questions in, answers out: usage, tenants, keys.

The gateway has checked who asks and for which tenant; here every value is checked. One rule: a question at fault is
refused with a code of the outward catalogue and the field's name; a database that is away is ``billing_unavailable``,
which may be asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import Message
from collegium_contracts.requests import (
    KeyCreate,
    KeyList,
    KeyRevoke,
    KeysReply,
    PossibleSpendReply,
    PossibleSpendRequest,
    PossibleSpendRow,
    TenantCreate,
    TenantList,
    TenantsReply,
    UsageReply,
    UsageRequest,
)
from collegium_store import is_transient

from collegium_billing import keys, usage
from collegium_billing.directory import TENANTS_MAX, Directory
from collegium_billing.errors import QuestionError
from collegium_billing.store import Store
from collegium_billing.usage_store import UsageStore

log = structlog.get_logger(__name__)

Q = TypeVar("Q", bound=Message)
Handler = Callable[[Any, str], Awaitable[Message]]

KEYS_MAX = 2_000  # what one KeysReply holds
POSSIBLE_SPEND_ROWS_MAX = 4_000  # what one PossibleSpendReply holds


class Questions:
    """Answers what other services ask of billing."""

    def __init__(
        self,
        store: Store,
        reports: UsageStore,
        directory: Directory,
        tiers: Callable[[], Collection[str]],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._reports = reports
        self._now_ms = now_ms
        self._directory = directory
        self._tiers = tiers

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the answering function of each subject."""
        return {
            s.SVC_BILLING_USAGE: answering(UsageRequest, self.usage),
            s.SVC_BILLING_POSSIBLE_SPEND: answering(PossibleSpendRequest, self.possible_spend),
            s.SVC_BILLING_TENANT_CREATE: answering(TenantCreate, self.create_tenant),
            s.SVC_BILLING_TENANT_LIST: answering(TenantList, self.list_tenants),
            s.SVC_BILLING_KEY_CREATE: answering(KeyCreate, self.create_key),
            s.SVC_BILLING_KEY_REVOKE: answering(KeyRevoke, self.revoke_key),
            s.SVC_BILLING_KEY_LIST: answering(KeyList, self.list_keys),
        }

    async def usage(self, asked: UsageRequest) -> UsageReply:
        """Answers a usage report."""
        query = usage.query(asked)
        reply = usage.reply(query, *await self._reports.usage(query, self._now_ms()))
        usage.check_size(len(codec.encode(reply)))
        return reply

    async def possible_spend(self, asked: PossibleSpendRequest) -> PossibleSpendReply:
        """Lists calls that were started and of whose end nothing is booked."""
        query = usage.query(UsageRequest(tenant=asked.tenant, from_ms=asked.from_ms, to_ms=asked.to_ms))
        found = await self._store.possible_spend(
            query.from_ms, query.to_ms, query.tenant, limit=POSSIBLE_SPEND_ROWS_MAX + 1
        )
        rows = [
            PossibleSpendRow(
                task_id=one.task_id,
                attempt=one.attempt,
                delivery=one.delivery,
                tenant=one.tenant,
                model=one.model,
                started_at_ms=one.at_ms,
            )
            for one in found[:POSSIBLE_SPEND_ROWS_MAX]
        ]
        reply = PossibleSpendReply(rows=rows, is_cut=len(found) > POSSIBLE_SPEND_ROWS_MAX)
        usage.check_size(len(codec.encode(reply)))
        return reply

    async def create_tenant(self, asked: TenantCreate) -> TenantsReply:
        """Creates a tenant without keys."""
        _check_tenant(asked.tenant)
        tiers = self._tiers()
        if asked.tier not in tiers:
            raise _invalid("tier", f"{asked.tier[:40]!r} is no tier; accepted: {', '.join(tiers)}")
        tenant = await self._directory.create_tenant(asked.tenant, asked.tier)
        return TenantsReply(tenants=[keys.tenant_row(tenant)])

    async def list_tenants(self, _asked: TenantList) -> TenantsReply:
        """Lists all tenants."""
        return TenantsReply(tenants=[keys.tenant_row(tenant) for tenant in await self._store.tenants(TENANTS_MAX)])

    async def create_key(self, asked: KeyCreate) -> KeysReply:
        """Creates a key; the answer is the only place where it is ever shown."""
        _check_tenant(asked.tenant)
        scopes = keys.check_scopes(asked.scopes)
        keys.check_project(asked.project)
        keys.check_name(asked.name)
        key, api_key = await self._directory.create_key(asked.tenant, asked.project, scopes, asked.name)
        return KeysReply(keys=[keys.key_row(key)], secret_key=api_key.text)

    async def revoke_key(self, asked: KeyRevoke) -> KeysReply:
        """Revokes a key."""
        keys.check_key_id(asked.key_id)
        return KeysReply(keys=[keys.key_row(await self._directory.revoke_key(asked.key_id))])

    async def list_keys(self, asked: KeyList) -> KeysReply:
        """Lists the keys of a tenant, or of all."""
        if asked.tenant is not None:
            _check_tenant(asked.tenant)
            if await self._store.tenant(asked.tenant) is None:
                raise QuestionError("not_found", f"there is no tenant {asked.tenant}", "tenant")
        found = await self._store.keys(asked.tenant, KEYS_MAX + 1)
        if len(found) > KEYS_MAX:
            raise _invalid("tenant", f"there are more than {KEYS_MAX} keys; ask for one tenant's")
        reply = KeysReply(keys=[keys.key_row(key) for key in found])
        usage.check_size(len(codec.encode(reply)))
        return reply


def answering(expected: type[Q], answer: Callable[[Q], Awaitable[Message]]) -> Handler:
    """Wraps an answer: checks the question's kind and turns this service's errors into refusals."""

    async def handle(asked: Any, _traceparent: str) -> Message:
        if not isinstance(asked, expected):
            raise RequestRefusedError("invalid_value", f"{expected.__name__} is asked here, not {type(asked).__name__}")
        try:
            return await answer(asked)
        except QuestionError as error:
            raise RequestRefusedError(error.code, error.message, error.param) from error
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("question not answered", asked=expected.__name__, error=type(error).__name__)
            raise RequestRefusedError("billing_unavailable", "the books cannot be read in time; ask again") from error

    return handle


def _check_tenant(tenant_id: str) -> None:
    if not keys.is_tenant_id(tenant_id):
        raise _invalid("tenant", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -")


def _invalid(param: str, message: str) -> QuestionError:
    return QuestionError("invalid_value", message, param)
