"""Claim checks: payloads over 256 KB wait in the object store, and the message carries a claim.

The claim is ``<name>:<bytes>:<sha256>``; what is fetched is checked against it. Objects expire with the events that
name them. One rule: a message whose claim names nothing is treated as undecodable, never as empty.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import secrets
from typing import Any

from collegium_contracts import subjects as s
from collegium_contracts.errors import UndecodableMessageError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import BadObjectMetaError, BucketNotFoundError, DigestMismatchError, NotFoundError
from nats.js.object_store import ObjectStore

from collegium_bus.connection import Connection
from collegium_bus.errors import BrokerUnavailableError

# nats-py waits for the chunks of an object for as long as they do not come.
REDEEM_SECONDS = 15.0
_ASIDE_BYTES = 1024 * 1024
_CLAIM = re.compile(r"([0-9a-f]{32}):([0-9]{1,12}):([0-9a-f]{64})\Z")


async def _digest(payload: bytes) -> str:
    """Returns the SHA-256; of much, beside the loop."""
    if len(payload) < _ASIDE_BYTES:
        return hashlib.sha256(payload).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(payload).hexdigest())


class _Unpurging(JetStreamContext):
    """nats-py purges what a failed put leaves; the right to do so would reach everybody's claims, and they expire."""

    async def purge_stream(self, *_args: Any, **_options: Any) -> bool:
        """Leaves what is there to its age."""
        return True


class ClaimStore:
    """Puts payloads into the claims bucket and redeems claims."""

    def __init__(self, connection: Connection, bucket: str = s.CLAIMS_BUCKET, *, may_remove: bool = False) -> None:
        self._connection = connection
        self._name = bucket
        self._context = JetStreamContext if may_remove else _Unpurging
        self._store: ObjectStore | None = None

    async def _bucket(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._context(self._connection.client).object_store(self._name)
        return self._store

    async def put(self, payload: bytes) -> str:
        """Stores a payload and returns its claim; raises BrokerUnavailableError where it cannot be stored."""
        name = secrets.token_hex(16)
        try:
            await (await self._bucket()).put(name, payload)
        except (NatsError, TimeoutError) as error:
            raise BrokerUnavailableError(f"a payload of {len(payload)} bytes was not stored: {error}") from error
        return f"{name}:{len(payload)}:{await _digest(payload)}"

    async def remove(self, claim: str) -> None:
        """Removes what a claim names, with its chunks; what is gone already is no error.

        Raises BrokerUnavailableError. For whoever was made with ``may_remove``: the right is one of its service.
        """
        if (parts := _CLAIM.match(claim)) is None:
            return
        try:
            async with asyncio.timeout(REDEEM_SECONDS):
                await (await self._bucket()).delete(parts[1])
        except NotFoundError:
            return
        except (NatsError, TimeoutError) as error:
            raise BrokerUnavailableError(f"claim {parts[1]} cannot be removed now: {error}") from error

    async def get(self, claim: str) -> bytes:
        """Redeems a claim.

        Raises UndecodableMessageError where it is no claim, or the object is gone or is not what was claimed, and
        BrokerUnavailableError where it cannot be told now.
        """
        parts = _CLAIM.match(claim)
        if parts is None:
            raise UndecodableMessageError("the claim check is not of the form name:bytes:sha256")
        name, size, digest = parts.groups()
        # Without a file nats-py copies what it has with every chunk, which takes seconds for tens of megabytes.
        sink = io.BytesIO() if int(size) > _ASIDE_BYTES else None
        try:
            async with asyncio.timeout(REDEEM_SECONDS):
                found = await (await self._bucket()).get(name, writeinto=sink)
        except BucketNotFoundError as error:
            raise BrokerUnavailableError(
                f"claim {name} cannot be redeemed now: there is no bucket of claims"
            ) from error
        except NotFoundError as error:
            raise UndecodableMessageError(f"claim {name} names an object that is gone") from error
        except (DigestMismatchError, BadObjectMetaError) as error:
            raise UndecodableMessageError(f"claim {name} holds other bytes than were claimed") from error
        except (NatsError, TimeoutError) as error:
            raise BrokerUnavailableError(f"claim {name} cannot be redeemed now: {error}") from error
        payload = sink.getvalue() if sink is not None else found.data or b""
        if len(payload) != int(size) or await _digest(payload) != digest:
            raise UndecodableMessageError(f"claim {name} holds other bytes than were claimed")
        return payload
