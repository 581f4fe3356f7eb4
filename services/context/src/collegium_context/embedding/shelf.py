"""Vectors that all replicas of context share: the bucket ``embeddings``, sealed with the tenant's key.

A bucket and not a table: it forgets what is old and what is too much by itself, one request reads a whole batch, a
tenant's vectors go by one purge, and writing them waits for nobody. One rule: what cannot be read in time is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog
from collegium_bus.connection import Connection
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_bus.purging import purge
from collegium_contracts import belongings
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope, Keyring, UnknownKeyError, held

log = structlog.get_logger(__name__)

# A text of the bundled embedder takes some milliseconds: waiting for long would cost more than it saves.
GET_SECONDS: Final = 0.5
_PURPOSE: Final = "embedding"


class Kept(NamedTuple):
    """A text's tokens and its vector: float16, little-endian, of length one."""

    tokens: int
    numbers: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_kept = msgspec.msgpack.Decoder(Kept).decode
_decode_sealed = msgspec.msgpack.Decoder(Envelope).decode


class VectorShelf:
    """The shared vectors."""

    def __init__(self, connection: Connection, keyring: Keyring) -> None:
        self._connection = connection
        self._keyring = keyring
        self._bucket = Bucket(connection, s.KV_EMBEDDINGS)

    async def get(self, tenant: str, digests: Sequence[bytes]) -> dict[bytes, Kept]:
        """Returns those of a tenant's vectors that stand and can be read."""
        keys = {s.embedding_key(tenant, digest): digest for digest in digests}
        found: dict[bytes, Kept] = {}
        try:
            async with asyncio.timeout(GET_SECONDS):
                for key, entry in (await self._bucket.newest(list(keys))).items():
                    if (kept := await self._opened(tenant, entry.value)) is not None:
                        found[keys[key]] = kept
        except (BusError, TimeoutError) as error:
            log.info("kept vectors not readable", tenant=tenant, error=str(error))
        return found

    def put(self, tenant: str, vectors: Mapping[bytes, Kept]) -> None:
        """Adds vectors without waiting; one that is lost is computed again."""
        try:
            for digest, kept in vectors.items():
                sealed = self._keyring.seal(tenant, _encode(kept), _PURPOSE)
                self._bucket.tell(s.embedding_key(tenant, digest), _encode(sealed), {})
        except UnknownKeyError:
            log.info("vectors not kept: the tenant has no key here", tenant=tenant)

    async def erase(self, tenant: str) -> int:
        """Removes a tenant's vectors and returns how many there were."""
        return await purge(self._connection, *belongings.bucket_of(s.KV_EMBEDDINGS, tenant))

    async def _opened(self, tenant: str, payload: bytes) -> Kept | None:
        try:
            sealed = _decode_sealed(payload)
            await held(self._keyring, tenant, sealed)
            return _decode_kept(self._keyring.open(tenant, sealed, _PURPOSE))
        except (msgspec.DecodeError, UnknownKeyError):
            return None
