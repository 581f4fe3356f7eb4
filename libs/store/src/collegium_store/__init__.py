"""PostgreSQL for Collegium: pools, migrations, group commits, retries and the archive of events.

Not here: any service's tables, which stand beside the service. One rule: every statement names its schema.
"""

from collegium_store.errors import (
    ClosedError,
    DatabaseUnreachableError,
    MigrationError,
    NewerSchemaError,
    StoreError,
    is_poison,
    is_transient,
    is_unstorable,
)
from collegium_store.group_commit import GroupCommit
from collegium_store.migrations import Applied, Migrations, is_current, migrate
from collegium_store.pool import open_connection, open_pool
from collegium_store.retry import retry_transient

__all__ = [
    "Applied",
    "ClosedError",
    "DatabaseUnreachableError",
    "GroupCommit",
    "MigrationError",
    "Migrations",
    "NewerSchemaError",
    "StoreError",
    "is_current",
    "is_poison",
    "is_transient",
    "is_unstorable",
    "migrate",
    "open_connection",
    "open_pool",
    "retry_transient",
]
