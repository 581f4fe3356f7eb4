"""The revisions of the schema ``context``; applied by ``collegium up`` and ``collegium migrate``."""

from pathlib import Path

from collegium_store import Migrations

MIGRATIONS = Migrations("context", Path(__file__).parent)
