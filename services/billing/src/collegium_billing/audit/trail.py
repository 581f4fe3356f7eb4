"""Wiring of the audit trail within billing: keys, sealer, answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts import audit as a
from collegium_contracts.messages import Message
from collegium_runtime.audit import Audit
from collegium_runtime.audit_keys import AuditKeys, load_signer
from collegium_runtime.platform import Platform
from collegium_settings import Settings

from collegium_billing.audit.questions import AuditQuestions
from collegium_billing.audit.sealer import Sealer
from collegium_billing.audit.store import AuditStore


class AuditTrail:
    """The audit trail's part of billing; ``recorder`` is billing's own way to it."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool) -> None:
        settings = platform.settings.audit
        self._platform = platform
        self._store = AuditStore(pool)
        key = settings.signing_key
        signer = load_signer(platform.data_dir, key.reveal() if key is not None else None)
        keys = AuditKeys((signer.public_key, *settings.trusted_keys))
        self.recorder = Audit.of(platform)
        self.sealer = Sealer(platform, self._store, signer, keys)
        self._questions = AuditQuestions(self._store, keys)

    def handlers(self) -> Mapping[str, Callable[[Any, str], Awaitable[Message]]]:
        """Returns the answering function of each subject."""
        return self._questions.handlers()

    async def start(self) -> None:
        """Seals from now on, and records when the configuration changes."""
        self._platform.on_settings.append(self._configured)
        await self.sealer.start()

    async def stop(self) -> None:
        """Stores what was recorded, then lets somebody else seal."""
        await self.recorder.stop()
        await self.sealer.stop()

    async def _configured(self, _settings: Settings) -> None:
        entry = self.recorder.entry(a.PLATFORM, "configuration", "configuration.changed")
        self.recorder.record(entry)
