"""What operators ask of the ledger and of prices, between the gateway and billing or the router.

One rule: money is pico-dollars, as a decimal string where it may exceed 64 bits.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.messages import Message
from collegium_contracts.state import PricePair


class LedgerAudit(Message, frozen=True, kw_only=True):
    """Asks billing whether the money laws hold for what happened in [from, to)."""

    from_ms: int
    to_ms: int


class LawRow(msgspec.Struct, frozen=True, kw_only=True):
    """One law: what it says, how often it is broken, and a few places where."""

    name: str
    meaning: str
    violations: int
    examples: list[str] = []


class LedgerAuditReply(Message, frozen=True, kw_only=True):
    """How the laws stand; ``first_ms`` is the time of the earliest transaction, none where there is none."""

    laws: list[LawRow]
    first_ms: int | None = None


class LedgerCorrect(Message, frozen=True, kw_only=True):
    """Asks billing to correct what a tenant owes: ``usd`` (decimal, signed) more or less. ``id`` makes it once."""

    id: str
    tenant: str
    usd: str
    reason: str


class LedgerCorrectReply(Message, frozen=True, kw_only=True):
    """The correction as it stands; ``is_new`` is false where it stood before."""

    id: str
    tenant: str
    usd: str
    reason: str
    at_ms: int
    is_new: bool


class LedgerCalls(Message, frozen=True, kw_only=True):
    """Asks billing for all booked calls in [from, to), wasted ones too, by model and day of UTC."""

    from_ms: int
    to_ms: int


class CallsRow(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one model on one day, as its provider should have counted them."""

    model: str
    day: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: str


class LedgerCallsReply(Message, frozen=True, kw_only=True):
    """The calls by model and day."""

    rows: list[CallsRow]


class PriceList(Message, frozen=True, kw_only=True):
    """Asks billing for the versions of a model's prices that were ever used, newest first."""

    model: str


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version: pico-dollars per token by class and per call, what we pay and what is charged."""

    version: int
    cost: dict[str, int]
    charge: dict[str, int]


class PricesReply(Message, frozen=True, kw_only=True):
    """The versions of a model's prices, newest first."""

    prices: list[PriceRow]


class PriceSet(Message, frozen=True, kw_only=True):
    """Asks the router to price a model from now on, or with ``from_ms`` above 0 from then on.

    A time that is past, or not after every version that stands, is refused with ``price_overlap``.
    """

    model: str
    prices: PricePair
    from_ms: int = 0


class PriceWithdraw(Message, frozen=True, kw_only=True):
    """Asks the router to take a scheduled version of a model's prices back.

    One that has begun, or begins in a moment, is refused with ``price_overlap``; answered with a PriceSetReply.
    """

    model: str
    version: int


class PriceSetReply(Message, frozen=True, kw_only=True):
    """The version that was asked for; ``is_new`` is false where nothing changed."""

    model: str
    version: int
    is_new: bool


LedgerRequest = LedgerAudit | LedgerCorrect | LedgerCalls | PriceList | PriceSet | PriceWithdraw
LedgerReply = LedgerAuditReply | LedgerCorrectReply | LedgerCallsReply | PricesReply | PriceSetReply
