"""Errors of this package, and which errors of the database may pass when tried again.

    StoreError
    ├── DatabaseUnreachableError    nothing answers at the address, or it starts for too long
    ├── MigrationError              the migrations on disk are not a line that ends in the newest file
    ├── NewerSchemaError            the database was migrated by a newer version than this one
    └── ClosedError                 something was submitted to a group commit that was closed

One rule: an error's text names the schema, file or limit, and never a value of a row.
"""

from __future__ import annotations

import asyncpg


class StoreError(Exception):
    """Base of the errors of this package; ``code`` is stable."""

    code = "store_error"


class DatabaseUnreachableError(StoreError):
    """The database does not answer; retryable."""

    code = "database_unreachable"


class MigrationError(StoreError):
    """The migrations cannot be applied as they are; terminal."""

    code = "migration_failed"


class NewerSchemaError(MigrationError):
    """The schema is of a newer version of the program; terminal."""

    code = "schema_newer"


class ClosedError(StoreError):
    """The group commit takes nothing new; terminal."""

    code = "group_commit_closed"


_TRANSIENT: tuple[type[BaseException], ...] = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.LockNotAvailableError,
    OSError,
)
_POISON: tuple[type[BaseException], ...] = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)


def is_transient(error: BaseException) -> bool:
    """Tells whether trying again may help: conflicts between transactions, lost or refused connections."""
    # asyncpg tells of a connection that died in use by its InterfaceError, which it also raises for misuse.
    lost = isinstance(error, asyncpg.InterfaceError) and "connection" in str(error)
    return (lost and not isinstance(error, asyncpg.DataError)) or isinstance(error, _TRANSIENT)


def is_unstorable(error: BaseException) -> bool:
    """Tells whether a text is to blame that no column takes: one that holds NUL, as itself or in JSON."""
    return isinstance(error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError)


def is_poison(error: BaseException) -> bool:
    """Tells whether one row's value is to blame, so that the others may be stored without it."""
    return isinstance(error, _POISON)
