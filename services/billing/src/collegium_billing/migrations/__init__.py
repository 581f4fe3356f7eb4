"""The migrations of billing's schema, run by ``collegium up`` and ``collegium migrate``."""

from __future__ import annotations

from pathlib import Path

from collegium_store import Migrations

MIGRATIONS = Migrations("billing", Path(__file__).parent)
