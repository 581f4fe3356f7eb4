"""The configuration's models into the roster: at the start, and whenever the file has changed.

The roster is one value, and one value is one message. One rule: a roster that the broker does not take, or that this
process cannot read, stops nobody; what stands is kept, and an alarm says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import VALUE_BYTES_MAX, Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import ModelRecord, Roster

from collegium_router.roster.roster import fitting, merge

log = structlog.get_logger(__name__)

_UNREADABLE = "roster_unreadable: what stands is kept, and the file's models are not taken"


class Introduced(NamedTuple):
    """What became of the file's models: by how many bytes they are over what the broker takes (0: they fit), and
    whether what stands could not be read."""

    over_bytes: int = 0
    unreadable: bool = False


async def introduce(models: Bucket, configured: Sequence[ModelRecord], now_ms: Callable[[], int]) -> Introduced:
    """Writes the roster where it has changed.

    One that is over what the broker takes is not written: the standing one stays, and where none stands the first
    models of the file that fit are taken. One that stands and cannot be read, as a newer router's, is left as it is:
    it holds added models, ranks and prices that no file knows.
    """
    while True:
        entry = await _newest(models)
        stands = entry is not None and not entry.deleted
        standing = _read(entry.value) if entry is not None and stands else None
        if stands and standing is None:
            return Introduced(unreadable=True)
        roster = merge(standing, configured, now_ms())
        if roster is standing:
            return Introduced()
        value = codec.encode(roster)
        over = max(0, len(value) - VALUE_BYTES_MAX)
        if over:
            kept = fitting(roster, VALUE_BYTES_MAX) if standing is None else standing
            log.error(
                "roster_too_large: the roster is over what one message may hold; the last good one stands",
                models=len(roster.models), kept=len(kept.models), size_bytes=len(value), max_bytes=VALUE_BYTES_MAX,
                do="name fewer models, or take ranks of single tenants back",
            )  # fmt: skip
            if standing is not None:
                return Introduced(over)
            value = codec.encode(kept)
        try:
            await models.put(s.ROSTER_KEY, value, expected_revision=entry.revision if entry is not None else 0)
        except AlreadyStandsError:
            continue
        return Introduced(over)


async def _newest(models: Bucket) -> Entry | None:
    """Returns what stands of the roster, also what is left of one that an operator deleted."""
    async for entry in models.entries(s.ROSTER_KEY):
        return entry
    return None


def _read(value: bytes) -> Roster | None:
    try:
        roster = codec.state.decode(value)
    except ContractError as error:
        log.error("roster_unreadable: what stands is kept, the file's models are not taken", error=str(error))
        return None
    if not isinstance(roster, Roster):
        log.error(
            "roster_unreadable: what stands is kept, the file's models are not taken", found=type(roster).__name__
        )
        return None
    return roster
