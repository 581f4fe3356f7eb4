"""Opening what ``tap --content`` shows: contents by the tenants' data keys, large messages from the object store.

One rule: what cannot be opened is shown with its reason, and everything else goes on.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import msgspec
from collegium_bus.claims import ClaimStore
from collegium_bus.connection import Connection
from collegium_bus.errors import BusError
from collegium_contracts.envelope import Envelope, UnknownKeyError
from collegium_contracts.errors import ContractError
from collegium_runtime.datakeys import DataKeys
from collegium_runtime.envelope_key import EnvelopeKeyError
from collegium_runtime.platform import unix_ms
from collegium_settings import Settings

from collegium_cli.tasks.passing import Passing, tenant_of


class Opening:
    """The data keys as the operator reads them: followed, never made or changed."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._claims = ClaimStore(connection)
        self._keys = DataKeys(connection, Path(settings.data_dir), settings.encryption, unix_ms, may_write=False)
        self._follows = True
        self._lacks_envelope_key = False

    async def start(self) -> None:
        """Reads the keys; says so where they, or what they are wrapped under, are not at hand."""
        try:
            await self._keys.start()
        except (EnvelopeKeyError, OSError) as error:
            self._lacks_envelope_key = True
            print(f"collegium tap: contents stay sealed, their envelope key is not at hand: {error}", file=sys.stderr)
        except BusError as error:
            self._follows = False
            print(f"collegium tap: contents stay sealed, the data keys cannot be read: {error}", file=sys.stderr)

    async def stop(self) -> None:
        """Stops following the keys."""
        await self._keys.stop()

    async def ready(self, passing: Passing) -> Passing:
        """Returns a message that waits in the object store as it is, and reads keys that were made meanwhile."""
        if passing.claim:
            try:
                passing = msgspec.structs.replace(passing, payload=await self._claims.get(passing.claim), claim="")
            except (BusError, ContractError):
                # Nothing more than its name is shown then.
                return passing
        tenant = tenant_of(passing) if self._follows else ""
        if tenant and self._keys.of(tenant) is None:
            with contextlib.suppress(BusError):
                await self._keys.learn(tenant)
        return passing

    def open(self, tenant: str, envelope: Envelope, purpose: str) -> bytes | str:
        """Returns what an envelope holds, or why that cannot be told."""
        try:
            return self._keys.ring.open(tenant, envelope, purpose)
        except UnknownKeyError:
            if self._keys.is_erased(tenant):
                return f"tenant {tenant} was erased"
            if self._lacks_envelope_key or not self._keys.ring.holds(tenant, envelope):
                return "its key is not at hand"
            return "it belongs elsewhere, or was altered"
