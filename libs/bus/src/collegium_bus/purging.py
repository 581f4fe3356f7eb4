"""Removing what stands on a filter of a stream, for erasure, and up to where that may be done.

One rule: a filter is always named.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from collegium_bus.connection import Connection
from collegium_bus.errors import NoAnswerError

PURGE_SECONDS = 30.0
_GONE: Final = (10043, 10057)
_NO_CONSUMER: Final = 10014


async def purge(connection: Connection, stream: str, filter_subject: str, *, up_to: int = 0) -> int:
    """Removes what stands on a filter and returns how many messages; raises NoAnswerError where it is refused.

    ``up_to`` above 0 is the last sequence that goes.
    """
    assert filter_subject, "without a filter the whole stream would go"
    wanted: dict[str, str | int] = {"filter": filter_subject}
    if up_to:
        wanted["seq"] = up_to + 1
    body = msgspec.json.encode(wanted)
    reply = msgspec.json.decode(await connection.api(f"STREAM.PURGE.{stream}", body, timeout_seconds=PURGE_SECONDS))
    if error := reply.get("error"):
        raise NoAnswerError(f"{stream}: {error.get('description')}")
    purged: int = reply["purged"]
    return purged


async def remove(connection: Connection, stream: str, sequence: int) -> bool:
    """Removes one message; false where it is gone already. Raises NoAnswerError where it is refused."""
    body = msgspec.json.encode({"seq": sequence})
    reply = msgspec.json.decode(await connection.api(f"STREAM.MSG.DELETE.{stream}", body))
    error = reply.get("error")
    if error is None:
        return True
    if error.get("err_code") in _GONE:
        return False
    raise NoAnswerError(f"message {sequence} of {stream}: {error.get('description')}")


async def read_up_to(connection: Connection, stream: str, durables: Iterable[str]) -> tuple[int, int]:
    """Returns up to which sequence all of these consumers have done with a stream, and its last sequence.

    A consumer that was never made reads nothing. Raises NoAnswerError where one cannot be asked.
    """
    last: int = (await _info(connection, f"STREAM.INFO.{stream}"))["state"]["last_seq"]
    floor = last
    for durable in durables:
        info = await _info(connection, f"CONSUMER.INFO.{stream}.{durable}")
        # With nothing pending and nothing in hand all that stood at ``last`` is done, whatever the floor says.
        if info and (info["num_pending"] or info["num_ack_pending"]):
            floor = min(floor, info["ack_floor"]["stream_seq"])
    return floor, last


async def _info(connection: Connection, subject: str) -> dict[str, Any]:
    reply: dict[str, Any] = msgspec.json.decode(await connection.api(subject, b""))
    error = reply.get("error")
    if error is None:
        return reply
    if error.get("err_code") == _NO_CONSUMER:
        return {}
    raise NoAnswerError(f"{subject}: {error.get('description')}")
