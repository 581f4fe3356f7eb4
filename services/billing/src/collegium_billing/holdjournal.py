"""Reading a shard's journal again. One rule: a journal that cannot be read whole makes no state at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from collegium_bus.delivery import Delivery
from collegium_bus.errors import NoAnswerError
from collegium_bus.ordered import OrderedReader
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.holds import HoldsJournaled
from collegium_runtime.platform import Platform

REPLAY_SECONDS: Final = 30


async def replay(platform: Platform, shard: int, after: int, on_record: Callable[[HoldsJournaled], None]) -> int:
    """Calls ``on_record`` with a shard's records after a sequence, in order; returns the newest one's sequence.

    Raises NoAnswerError where that takes too long, and ContractError for a record that cannot be read.
    """
    subject = s.ledger_journal(shard)
    last = await platform.direct.last(s.LEDGER, subject)
    newest = last.sequence if last is not None else 0
    if newest <= after:
        return newest
    failed: list[ContractError] = []
    done = asyncio.Event()

    def on_delivery(delivery: Delivery) -> None:
        try:
            record = codec.journey.decode(delivery.payload)
        except ContractError as error:
            failed.append(error)
            record = None
        if isinstance(record, HoldsJournaled):
            on_record(record)
        if delivery.sequence >= newest:
            done.set()

    reader = OrderedReader(
        platform.connection, s.LEDGER, [subject], on_delivery, start_sequence=after + 1, label=f"journal-{shard}"
    )
    reader.start()
    try:
        async with asyncio.timeout(REPLAY_SECONDS):
            await done.wait()
    except TimeoutError:
        raise NoAnswerError(f"the journal of shard {shard} could not be read in time") from None
    finally:
        await reader.stop()
    if failed:
        raise failed[0]
    return newest
