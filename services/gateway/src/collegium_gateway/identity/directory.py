"""What this replica knows of tenants, keys and models: the buckets, watched.

One rule: what cannot be read keeps its last good value, and is logged.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from collegium_bus.connection import Connection
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.modelstate import EndpointHealth
from collegium_contracts.priceversions import PriceClock
from collegium_contracts.state import Breaker, ModelRecord, Roster, Scoreboard, TenantRecord
from collegium_contracts.windows import QuotaWindow, QuotaWindows
from collegium_runtime.datakeys import DataKeys
from collegium_runtime.storage import StorageBook

from collegium_gateway.errors import ApiError
from collegium_gateway.identity.letting_in import LettingIn
from collegium_gateway.identity.principal import KeyBook
from collegium_gateway.identity.tokens import Tokens
from collegium_gateway.reuse.trials import KnownTrials

log = structlog.get_logger(__name__)


class Directory:
    """Keys and roster, followed by watches; the scoreboard, read when asked."""

    def __init__(
        self,
        connection: Connection,
        now_ms: Callable[[], int],
        keys: KeyBook | None = None,
        data_keys: DataKeys | None = None,
        storage: StorageBook | None = None,
    ) -> None:
        self._now_ms = now_ms
        self.keys = keys or KeyBook()
        self.storage = storage
        self.letting_in = LettingIn(self.keys, data_keys)
        # None where no issuer is configured, so that requests with keys pay nothing for tokens.
        self.tokens: Tokens | None = None
        self._prices = PriceClock()
        # By student what it is made of now, which its answers depend on beside what was asked.
        self.contents: dict[str, str] = {}
        self.breakers: dict[str, Breaker] = {}
        self.endpoints: dict[str, EndpointHealth] = {}
        self._scoreboard: Scoreboard | None = None
        self._policy = Bucket(connection, s.KV_POLICY)
        self.trials = KnownTrials(connection)
        self._quotas = Bucket(connection, s.KV_QUOTAS)
        self._watches = [
            Bucket(connection, s.KV_TENANTS).watch(self._learn_tenant),
            Bucket(connection, s.KV_MODELS).watch(self._learn_roster),
            Bucket(connection, s.KV_BREAKERS).watch(self._learn_breaker),
        ]

    async def start(self) -> None:
        """Reads what stands, then follows."""
        for watch in self._watches:
            await watch.start()
        if self.storage is not None:
            await self.storage.start()
        await self.letting_in.start()
        await self.trials.start()

    async def stop(self) -> None:
        """Stops following."""
        for watch in self._watches:
            await watch.stop()
        if self.storage is not None:
            await self.storage.stop()
        await self.letting_in.stop()
        await self.trials.stop()

    @property
    def ready(self) -> bool:
        """Whether there is a key to be let in with and a model to answer."""
        return bool(self.models) and any(True for _ in self.keys.tenants())

    @property
    def models(self) -> list[ModelRecord]:
        """The roster, with the prices of now."""
        return self._prices.models(self._now_ms())

    def need_storage(self, tenant: str, tier: str, more_bytes: int = 1) -> None:
        """Raises ApiError ``storage_full`` where a tenant may not store so much more; counted some seconds ago."""
        reason = self.storage.refusal(tenant, tier, more_bytes) if self.storage is not None else None
        if reason is not None:
            raise ApiError("storage_full", reason)

    def take_tokens(self, tokens: Tokens) -> None:
        """Lets tokens of other issuers in beside keys."""
        self.tokens = self.keys.tokens = tokens

    async def scoreboard(self) -> Scoreboard | None:
        """Returns evolution's newest scoreboard that could be read, or none."""
        entry = await self._policy.get(s.SCOREBOARD_KEY)
        value = self._read(entry) if entry is not None else None
        if isinstance(value, Scoreboard):
            self._scoreboard = value
        return self._scoreboard

    async def quotas(self) -> dict[str, QuotaWindow]:
        """Returns the routers' newest windows of limited models."""
        entry = await self._quotas.get(s.WINDOWS_KEY)
        value = codec.state.decode(entry.value) if entry is not None else None
        return {one.model: one for one in value.models} if isinstance(value, QuotaWindows) else {}

    def _learn_tenant(self, entry: Entry) -> None:
        record = self._read(entry)
        if isinstance(record, TenantRecord):
            self.letting_in.learn(record)

    def _learn_roster(self, entry: Entry) -> None:
        roster = self._read(entry)
        if isinstance(roster, Roster):
            self._prices = PriceClock(roster.models)
            self.contents = {model.name: model.student.content for model in roster.models if model.student is not None}

    def _learn_breaker(self, entry: Entry) -> None:
        breaker = self._read(entry)
        if isinstance(breaker, Breaker):
            self.breakers[breaker.model] = breaker
        elif isinstance(breaker, EndpointHealth):
            self.endpoints[breaker.model] = breaker

    def _read(self, entry: Entry) -> object:
        try:
            return codec.state.decode(entry.value)
        except ContractError as error:
            log.error("state unreadable, keeping the last good value", key=entry.key, error=str(error))
            return None
