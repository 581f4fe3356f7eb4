"""Whether a tenant may store more: decided at the same door as its money, and before it, so that nothing is counted.

One rule: a task that was let in stays so, whatever has been stored meanwhile.
"""

from __future__ import annotations

from collegium_contracts.requests import HoldAnswer, HoldAsk
from collegium_runtime.storage import StorageBook

from collegium_billing.holds.shardbook import ShardBook


def refusal(ask: HoldAsk, book: ShardBook, storage: StorageBook) -> HoldAnswer | None:
    """Returns the answer to a task that there is no room for, none where there is."""
    if not ask.stores or book.is_open(ask):
        return None
    reason = storage.refusal(ask.tenant, ask.tier)
    return None if reason is None else HoldAnswer(code="storage_full", message=reason)
