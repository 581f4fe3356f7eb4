"""The operator's connection to the broker, for verbs.

Not the services' ``connect_as``, which ends its process by a signal when the broker closes the connection for good: a
supervisor starts a service again, but a verb must tell its user what failed.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

from collegium_bus.connection import Connection, connect
from collegium_bus.errors import BrokerUnavailableError
from collegium_contracts.permissions import inbox_prefix
from collegium_runtime.runtime_file import Runtime
from collegium_settings import Settings

from collegium_cli.up.credentials import OPERATOR


@contextlib.asynccontextmanager
async def operator(settings: Settings, runtime: Runtime, user: str = OPERATOR) -> AsyncGenerator[Connection]:
    """Connects to the broker as the operator, or as a service whose credentials the runtime file names.

    Raises BrokerUnavailableError where no broker is known or none answers.
    """
    url = settings.nats.url or runtime.nats
    if not url:
        raise BrokerUnavailableError("no broker known: set nats.url, or start `collegium up` on this data folder")
    seed_file = runtime.credentials.get(user)
    connection = await connect(
        url,
        user,
        inbox_prefix=inbox_prefix(user),
        nkey_seed=Path(seed_file).read_text().strip() if seed_file else None,  # noqa: ASYNC240 - once, at start
        creds=Path(settings.nats.creds) if settings.nats.creds else None,
        tls=_tls(settings),
    )
    try:
        yield connection
    finally:
        await connection.close()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    files = settings.nats.tls
    if files is None:
        return None
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context
