"""The use of keys, told to the audit trail without holding anything up.

The first use of a key from an address in an hour is told; each refusal of a key is told the first time and then counted
by the minute, so that a flood of refusals is a few entries. One rule: a request that is let in costs one look into a
set.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from collegium_contracts import audit as a
from collegium_contracts.ids import API_KEY
from collegium_runtime.audit import Audit
from collegium_runtime.audit_counting import Counting
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.http.asgi import Scope
from collegium_gateway.identity.principal import KeyBook, Principal
from collegium_gateway.operating.audit_acts import Act

HOUR_MS: Final = 3_600_000
WINDOW_MS: Final = 60_000
MAX_USES: Final = 20_000  # told apart in an hour
MAX_REFUSALS: Final = 2_000  # told apart in a minute
LOOK_SECONDS: Final = 5.0
MANY: Final = "many"

# The request being served, as ASGI describes it: who asks is known deep inside, from where only at the door.
ASKING: ContextVar[Scope | None] = ContextVar("asking", default=None)


class _Refused(NamedTuple):
    """What refusals have in common that are counted together."""

    tenant: str
    actor: str
    action: str
    object: str
    reason: str
    address: str


def address_of(scope: Scope | None) -> str:
    """Returns the address that a request came from: the other end of the connection, whatever headers say."""
    client: Any = scope.get("client") if scope is not None else None
    return str(client[0]) if client else ""


def peer_scope(peer: str, method: str) -> Scope:
    """Describes a gRPC call as ASGI describes a request; ``peer`` is like ``ipv4:127.0.0.1:5000``."""
    host = peer.partition(":")[2].rpartition(":")[0]
    return {"type": "grpc", "client": (host, 0), "path": method}


class KeyWatch:
    """Notes uses and refusals."""

    def __init__(self, platform: Platform, audit: Audit) -> None:
        self._now_ms = platform.now_ms
        self._audit = audit
        self._hour = 0
        self._uses: set[tuple[str, str]] = set()
        self._refusals: Counting[_Refused] = Counting(WINDOW_MS, MAX_REFUSALS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tells of counts as their minutes end, from now on."""
        self._task = asyncio.create_task(self._keep_telling(), name="keywatch")

    async def stop(self) -> None:
        """Tells of what was counted."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._refusals.rest():
            self._tell(one.key, one.more)

    def used(self, principal: Principal) -> None:
        """Notes that a key was let in."""
        hour = self._now_ms() // HOUR_MS
        if hour != self._hour:
            self._hour = hour
            self._uses.clear()
        address = address_of(ASKING.get())
        use = (principal.key_id, address)
        if use in self._uses:
            return
        if len(self._uses) >= MAX_USES:
            use = (principal.key_id, MANY)
            if use in self._uses or len(self._uses) >= 2 * MAX_USES:
                return
        self._uses.add(use)
        details = {"address": use[1], "project": principal.project}
        key_id = principal.key_id
        self._audit.record(self._audit.entry(principal.tenant, key_id, a.KEY_USED, object=key_id, details=details))

    def refused(self, tenant: str, key_id: str, code: str) -> None:
        """Notes that a key was refused; ``tenant`` is empty where it is nobody's."""
        scope = ASKING.get()
        address = address_of(scope)
        told = _Refused(tenant or a.PLATFORM, key_id, a.KEY_REFUSED, key_id, code, address)
        others = _Refused(a.PLATFORM, "", a.KEY_REFUSED, "", code, MANY)
        self._note(told, others, {"path": str(scope["path"])} if scope is not None else {})

    def act_refused(self, principal: Principal, act: Act, code: str, details: dict[str, str]) -> None:
        """Notes that an act was refused for want of rights."""
        address = details.get("address", "")
        told = _Refused(principal.tenant, principal.key_id, act.action, act.object, code, address)
        others = _Refused(principal.tenant, principal.key_id, act.action, "", code, MANY)
        self._note(told, others, details)

    def _note(self, told: _Refused, others: _Refused, details: dict[str, str]) -> None:
        first = self._refusals.note(told, others, self._now_ms())
        if first is not None:
            self._tell(first, 1, details)

    def _tell(self, one: _Refused, count: int, details: dict[str, str] | None = None) -> None:
        self._audit.record(
            self._audit.entry(
                one.tenant,
                one.actor,
                one.action,
                "refused",
                object=one.object,
                reason=one.reason,
                details={**(details or {}), "address": one.address},
                count=count,
            )
        )

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for one in self._refusals.ended(self._now_ms()):
                self._tell(one.key, one.more)


class WatchedKeys(KeyBook):
    """All keys, with their use and refusal noted."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: KeyWatch | None = None

    def authenticate(self, authorization: str | None) -> Principal:
        """Returns who holds the bearer key; raises ApiError as KeyBook does."""
        try:
            principal = super().authenticate(authorization)
        except ApiError as error:
            if self.watch is not None:
                self.watch.refused(*self._claimed(authorization), error.code)
            raise
        if self.watch is not None:
            self.watch.used(principal)
        return principal

    def _claimed(self, authorization: str | None) -> tuple[str, str]:
        """Returns whose key was claimed to be sent, and its public id: both empty where none can be told."""
        match = API_KEY.match((authorization or "").partition(" ")[2].strip())
        if match is None:
            return "", ""
        found = self._keys.get(match[1])
        return (found[0].id if found is not None else "", match[1])
