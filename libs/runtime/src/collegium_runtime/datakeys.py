"""The tenants' data keys: the bucket ``datakeys``, followed by whoever reads content; the gateway makes them.

A key stands only wrapped under the envelope key. Rotation adds one, rewrapping writes the same keys under the newest
envelope key, and destruction leaves a mark without keys. One rule: every change is a compare-and-set, and the values
that it replaces are overwritten on the broker's disk.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from collegium_bus.connection import Connection
from collegium_bus.errors import AlreadyStandsError, BusError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import UnknownKeyError
from collegium_contracts.errors import ContractError
from collegium_contracts.journey import BUCKETS, Service
from collegium_contracts.state import DataKeysRecord, WrappedKey
from collegium_settings.settings import EncryptionSettings

from collegium_runtime.envelope_key import DATA_KEY_BYTES, EnvelopeKeys
from collegium_runtime.keyring import ACTIVE_AFTER_MS, TenantKeyring

log = structlog.get_logger(__name__)

CHANGE_TRIES = 20
# Older keys open what they sealed; more than this are no rotation but a mistake.
KEYS_MAX = 1_000


def writes_data_keys(service: Service) -> bool:
    """Whether a service makes data keys."""
    return any(bucket.name == s.KV_DATAKEYS and service in bucket.writers for bucket in BUCKETS)


def reads_data_keys(service: Service) -> bool:
    """Whether a service opens or seals content."""
    return any(bucket.name == s.KV_DATAKEYS and service in (*bucket.readers, *bucket.writers) for bucket in BUCKETS)


class KeysExhaustedError(Exception):
    """A tenant has as many data keys as it may have."""


class DataKeys:
    """The data keys of all tenants, as this process knows them; ``ring`` seals and opens with them."""

    def __init__(
        self,
        connection: Connection,
        data_dir: Path,
        encryption: EncryptionSettings,
        now_ms: Callable[[], int],
        *,
        may_write: bool,
    ) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._may_write = may_write
        self._bucket = Bucket(connection, s.KV_DATAKEYS)
        self._watch = self._bucket.watch(self._take)
        self._records: dict[str, tuple[int, DataKeysRecord]] = {}
        self.envelope = EnvelopeKeys(data_dir, encryption)
        self.ring = TenantKeyring(self.envelope.unwrap, self.learn, now_ms)

    async def start(self) -> None:
        """Reads what stands and follows it.

        Raises EnvelopeKeyError where its envelope key is not here, NoAnswerError where the bucket does not stand.
        """
        # A watch would wait for a bucket that nobody has made.
        await self._bucket.size_bytes()
        await self._watch.start()
        self.envelope.check(self.wrapped_by())
        if self._may_write:
            self.envelope.make()

    async def stop(self) -> None:
        """Stops following."""
        await self._watch.stop()

    def wrapped_by(self) -> dict[str, int]:
        """How many data keys are wrapped under each envelope key, by its id."""
        found: dict[str, int] = {}
        for _, record in self._records.values():
            for key in record.keys:
                found[key.wrapped_by] = found.get(key.wrapped_by, 0) + 1
        return found

    def is_erased(self, tenant: str) -> bool:
        """Whether the tenant's keys were destroyed."""
        known = self._records.get(tenant)
        return known is not None and known[1].erased_at_ms > 0

    def of(self, tenant: str) -> DataKeysRecord | None:
        """The tenant's keys as they are known here."""
        known = self._records.get(tenant)
        return known[1] if known is not None else None

    async def learn(self, tenant: str) -> None:
        """Reads the tenant's keys anew."""
        await self._read(tenant)

    async def ensure(self, tenant: str) -> None:
        """Makes the tenant's first key where it has none; raises UnknownKeyError where they were destroyed."""
        if self.ring.holds(tenant):
            return
        await self._change(tenant, lambda record: record if record.keys else self._with_new_key(record))

    async def rotate(self, tenant: str) -> DataKeysRecord:
        """Makes a new key for what is sealed from now on; the others stay for what stands."""
        return await self._change(tenant, self._with_new_key)

    async def rewrap(self, *, is_dry_run: bool = False) -> int:
        """Writes every key that is wrapped under an earlier envelope key under the newest; returns how many."""
        newest, count = self.envelope.newest.id, 0
        for tenant, (_, known) in list(self._records.items()):
            count += sum(key.wrapped_by != newest for key in known.keys)
            if not is_dry_run and any(key.wrapped_by != newest for key in known.keys):
                await self._change(tenant, self._rewrapped)
        return count

    async def destroy(self, tenant: str) -> int:
        """Destroys all keys of a tenant for good and returns how many there were; doing it again is harmless."""
        destroyed = 0
        for _ in range(CHANGE_TRIES):
            revision, record = await self._read(tenant)
            destroyed = max(destroyed, len(record.keys))
            if record.erased_at_ms:
                await self._overwrite_before(tenant, revision)
                return destroyed
            gone = DataKeysRecord(tenant=tenant, erased_at_ms=self._now_ms())
            try:
                await self._put(gone, revision)
            except AlreadyStandsError:
                continue
            return destroyed
        raise BusError(f"the data keys of tenant {tenant} were changed by others {CHANGE_TRIES} times in a row")

    async def _change(self, tenant: str, change: Callable[[DataKeysRecord], DataKeysRecord]) -> DataKeysRecord:
        for _ in range(CHANGE_TRIES):
            revision, record = await self._read(tenant)
            if record.erased_at_ms:
                raise UnknownKeyError(f"the data keys of tenant {tenant} were destroyed, and none is made again")
            changed = change(record)
            if changed is record:
                return record
            try:
                await self._put(changed, revision)
            except AlreadyStandsError:
                continue
            return changed
        raise BusError(f"the data keys of tenant {tenant} were changed by others {CHANGE_TRIES} times in a row")

    async def _put(self, record: DataKeysRecord, revision: int) -> None:
        value = codec.encode(record)
        made = await self._bucket.put(record.tenant, value, expected_revision=revision)
        self._take(Entry(record.tenant, value, made))
        await self._overwrite_before(record.tenant, made)

    async def _overwrite_before(self, tenant: str, revision: int) -> None:
        """Deletes earlier values one by one: unlike a purge, that has the broker write random bytes over each."""
        async for entry in self._bucket.entries(tenant):
            if entry.revision < revision:
                await self._bucket.overwrite(entry.revision)

    async def _read(self, tenant: str) -> tuple[int, DataKeysRecord]:
        entry = await self._bucket.get(tenant)
        if entry is None:
            return 0, DataKeysRecord(tenant=tenant)
        self._take(entry)
        record = codec.state.decode(entry.value)
        assert isinstance(record, DataKeysRecord), "the bucket holds nothing else"
        return entry.revision, record

    def _take(self, entry: Entry) -> None:
        known = self._records.get(entry.key)
        if known is not None and known[0] >= entry.revision:
            return
        try:
            record = codec.state.decode(entry.value)
        except ContractError as error:
            log.error("data keys unreadable, keeping the last good ones", tenant=entry.key, error=str(error))
            return
        if not isinstance(record, DataKeysRecord) or record.tenant != entry.key:
            log.error("data keys of another tenant, refused", tenant=entry.key)
            return
        self._records[entry.key] = (entry.revision, record)
        self.ring.take(record)
        if len(record.keys) > 1:
            wait_ms = record.keys[-1].created_at_ms + ACTIVE_AFTER_MS - self._now_ms()
            if wait_ms > 0:
                asyncio.get_running_loop().call_later(wait_ms / 1000 + 0.1, self.ring.renew, record.tenant)

    def _with_new_key(self, record: DataKeysRecord) -> DataKeysRecord:
        if len(record.keys) >= KEYS_MAX:
            raise KeysExhaustedError(f"tenant {record.tenant} has {KEYS_MAX} data keys, the most it may have")
        key_id = f"dk{secrets.token_hex(6)}"
        new = self.envelope.wrap(record.tenant, key_id, os.urandom(DATA_KEY_BYTES), self._now_ms())
        return msgspec.structs.replace(record, keys=[*record.keys, new])

    def _rewrapped(self, record: DataKeysRecord) -> DataKeysRecord:
        def again(key: WrappedKey) -> WrappedKey:
            if key.wrapped_by == self.envelope.newest.id:
                return key
            plain = self.envelope.unwrap(record.tenant, key)
            return self.envelope.wrap(record.tenant, key.id, plain, key.created_at_ms)

        return msgspec.structs.replace(record, keys=[again(key) for key in record.keys])
