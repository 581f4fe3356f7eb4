"""Removing what stands on a filter of a stream, for erasure. One rule: a filter is always named."""

from __future__ import annotations

import msgspec

from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError

PURGE_SECONDS = 30.0


async def purge(connection: Connection, stream: str, filter_subject: str) -> int:
    """Removes what stands on a filter and returns how many messages; raises NoAnswerError where it is refused."""
    assert filter_subject, "without a filter the whole stream would go"
    body = msgspec.json.encode({"filter": filter_subject})
    reply = msgspec.json.decode(await connection.api(f"STREAM.PURGE.{stream}", body, timeout_seconds=PURGE_SECONDS))
    if error := reply.get("error"):
        raise NoAnswerError(f"{stream}: {error.get('description')}")
    purged: int = reply["purged"]
    return purged
