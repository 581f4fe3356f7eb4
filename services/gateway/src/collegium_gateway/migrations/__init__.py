"""The migrations of gateway's schema, run by ``collegium up`` and ``collegium migrate``."""

from __future__ import annotations

from pathlib import Path

from collegium_store import Migrations

MIGRATIONS = Migrations("gateway", Path(__file__).parent)
