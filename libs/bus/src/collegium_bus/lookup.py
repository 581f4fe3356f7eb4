"""Looking up one stored message by its sequence.

One rule: a look-up reads and never consumes.
"""

from __future__ import annotations

import msgspec

from collegium_bus.connection import Connection
from collegium_bus.wire import decode_headers


async def subject_at(connection: Connection, stream: str, sequence: int) -> str | None:
    """Returns the subject of a stream's message, or none where it does not stand (any more)."""
    body = msgspec.json.encode({"seq": sequence})
    _, block = await connection.request_raw(f"$JS.API.DIRECT.GET.{stream}", body)
    return decode_headers(block).get("Nats-Subject")
