"""Pools of connections.

One rule: nothing depends on the state of a session (statements name their schema, settings are per transaction), so a
pool works behind a transaction pooler too.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from collegium_store.errors import DatabaseUnreachableError, is_transient
from collegium_store.retry import retry_transient

CONNECT_SECONDS: Final = 30.0
_POOLER_PARAMETER = "pgbouncer"


def connect_options(url: str, application_name: str) -> dict[str, Any]:
    """Returns asyncpg's connect arguments for a URL.

    The parameter ``pgbouncer=true`` of the URL says that a transaction pooler stands between: statements are then not
    prepared under names, and no start-up parameter is sent that a pooler refuses.
    """
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    pooled = any(name == _POOLER_PARAMETER and value.lower() in {"true", "1", "yes"} for name, value in given)
    rest = [(name, value) for name, value in given if name != _POOLER_PARAMETER]
    options: dict[str, Any] = {
        "dsn": urlunsplit(parts._replace(query=urlencode(rest))),
        "server_settings": {"application_name": application_name},
    }
    if pooled:
        options["statement_cache_size"] = 0
    else:
        # Compiling costs more than the short statements here ever take.
        options["server_settings"]["jit"] = "off"
    return options


async def open_pool(
    url: str,
    *,
    application_name: str,
    min_size: int = 1,
    max_size: int = 4,
    connect_seconds: float = CONNECT_SECONDS,
) -> asyncpg.Pool:
    """Opens a pool, and waits up to ``connect_seconds`` for a server that is only starting.

    One try, and each later connection of the pool, is given up after ``connect_seconds`` without an answer, so that a
    server which falls silent during the last try costs at most twice that.
    Raises DatabaseUnreachableError; a wrong password or database is asyncpg's error, at once.
    """
    options: dict[str, Any] = {**connect_options(url, application_name), "timeout": connect_seconds}

    async def opened() -> asyncpg.Pool:
        pool = asyncpg.create_pool(**options, min_size=min_size, max_size=max_size, reset=_reset)
        return await pool

    return await _reached(opened, url, connect_seconds)


async def open_connection(
    url: str, *, application_name: str, connect_seconds: float = CONNECT_SECONDS
) -> asyncpg.Connection:
    """Opens one connection, under the terms of :func:`open_pool`."""
    options: dict[str, Any] = {**connect_options(url, application_name), "timeout": connect_seconds}

    async def opened() -> asyncpg.Connection:
        return await asyncpg.connect(**options)

    return await _reached(opened, url, connect_seconds)


async def _reached(opened: Any, url: str, connect_seconds: float) -> Any:
    try:
        return await retry_transient(opened, deadline_seconds=connect_seconds)
    except Exception as error:
        if not is_transient(error):
            raise
        place = urlsplit(url)
        where = f"{place.hostname or 'a socket'}:{place.port or 5432}"
        # A timeout has no text of its own.
        cause = str(error) or type(error).__name__
        raise DatabaseUnreachableError(f"no PostgreSQL at {where} within {connect_seconds:g} s ({cause})") from error


async def _reset(connection: Any) -> None:
    # asyncpg's own reset is a round trip at every release; sessions here have no state but an abandoned transaction.
    if connection.is_in_transaction():
        await connection.reset()
