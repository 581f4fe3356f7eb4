"""The revisions of the schema ``evolution``; applied by ``collegium up`` and ``collegium migrate``."""

from pathlib import Path

from collegium_store import Migrations

MIGRATIONS = Migrations("evolution", Path(__file__).parent)
