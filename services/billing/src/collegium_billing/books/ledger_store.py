"""The ledger's SQL: adding transactions with their entries, corrections, and versions of prices.

One rule: a transaction and its entries are added by one statement, and only where its event id was never seen.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import msgspec

from collegium_billing.books.booking import Books
from collegium_billing.books.laws import Law
from collegium_billing.books.ledger import Posting, correction, postings

# Shorter than a caller waits for its answer.
LAW_SECONDS = 20.0

# Entries come from the rows that were inserted just now; those of a conflict are not among what it returns.
_POST = """
WITH new AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[], $17::int8[]
    ) AS new (
        event_id, kind, at_ms, tenant, project, key_id, model, task, debit, credit, amount, price_version, input_tokens,
        cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens
    )
), added AS (
    INSERT INTO billing.transactions (
        event_id, kind, at, tenant, price_version, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens
    )
    SELECT event_id, kind, timestamptz 'epoch' + at_ms * interval '1 millisecond', tenant, price_version, input_tokens,
           cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens
    FROM new
    ON CONFLICT DO NOTHING
    RETURNING id, event_id
)
INSERT INTO billing.entries (transaction, line, account, amount_picos, tenant, project, key_id, model, task)
SELECT added.id, lines.line, lines.account, lines.amount, new.tenant, new.project, new.key_id, new.model, new.task
FROM added JOIN new USING (event_id)
CROSS JOIN LATERAL (
    VALUES (1::int2, new.debit, new.amount::numeric), (2::int2, new.credit, -new.amount::numeric)
) AS lines (line, account, amount)
"""

_ADD_PRICES = """
INSERT INTO billing.prices (model, version, cost, charge)
SELECT model, version, cost::jsonb, charge::jsonb
FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[]) AS new (model, version, cost, charge)
ON CONFLICT DO NOTHING
"""


async def book(connection: Any, books: Books) -> None:
    """Adds what a batch of rows means, in the transaction that adds the rows."""
    if books.prices:
        await connection.execute(_ADD_PRICES, *map(list, zip(*books.prices, strict=True)))
    await post(connection, postings(books))


async def post(connection: Any, rows: Sequence[Posting]) -> None:
    """Adds transactions with their entries, in the caller's transaction; those that stand already stay."""
    if rows:
        await connection.execute(_POST, *map(list, zip(*rows, strict=True)))


class Correction(NamedTuple):
    """A correction as it stands: the fields are the columns of ``billing.corrections``."""

    id: str
    tenant: str
    amount_picos: int
    reason: str
    at_ms: int


class PriceVersion(NamedTuple):
    """A version of a model's prices: pico-dollars by class."""

    version: int
    cost: dict[str, int]
    charge: dict[str, int]


class CallSums(NamedTuple):
    """All booked calls of one model on one day of UTC."""

    model: str
    day: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_picos: int


class LedgerStore:
    """The ledger over a pool: corrections, and what is read of it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def correct(self, made: Correction) -> tuple[Correction, bool]:
        """Adds a correction with its transaction; returns what stands under its id, and whether that is new."""
        async with self._pool.acquire() as connection, connection.transaction():
            fields = (made.id, made.tenant, str(made.amount_picos), made.reason, made.at_ms)
            if await connection.fetchval(_ADD_CORRECTION, *fields):
                await post(connection, [correction(made.id, made.tenant, made.amount_picos, made.at_ms)])
                return made, True
            row = await connection.fetchrow(_CORRECTION, made.id)
            return Correction(row[0], row[1], int(row[2]), row[3], row[4]), False

    async def prices(self, model: str, limit: int) -> list[PriceVersion]:
        """Returns the versions of a model's prices that calls were pinned to, newest first."""
        rows = await self._pool.fetch(
            "SELECT version, cost::text, charge::text FROM billing.prices WHERE model = $1"
            " ORDER BY version DESC LIMIT $2",
            model,
            limit,
        )
        return [
            PriceVersion(row[0], *(msgspec.json.decode(text, type=dict[str, int]) for text in row[1:])) for row in rows
        ]

    async def calls(self, from_ms: int, to_ms: int, limit: int) -> list[CallSums]:
        """Returns what was booked of all calls in [from, to), wasted ones too, by model and day."""
        async with asyncio.timeout(LAW_SECONDS):
            rows = await self._pool.fetch(_CALLS, from_ms, to_ms, limit)
        return [CallSums(row[0], row[1], *map(int, tuple(row)[2:])) for row in rows]

    async def first_ms(self) -> int | None:
        """Returns the time of the earliest transaction."""
        return await self._pool.fetchval("SELECT (extract(epoch FROM min(at)) * 1000)::int8 FROM billing.transactions")

    async def count_violations(self, law: Law, from_ms: int, to_ms: int, examples: int) -> tuple[int, list[str]]:
        """Returns how often a law is broken in [from, to), and the first few places.

        Raises TimeoutError after LAW_SECONDS.
        """
        statement = f"SELECT count(*), (array_agg(what ORDER BY what))[1:$3] FROM ({law.sql}) AS broken (what)"  # noqa: S608 - a constant
        async with asyncio.timeout(LAW_SECONDS):
            row = await self._pool.fetchrow(_window(statement), from_ms, to_ms, examples)
        return row[0], list(row[1] or ())

    async def violations(self, law: Law, from_ms: int, to_ms: int, limit: int) -> list[str]:
        """Returns the places in [from, to) where a law is broken, at most ``limit``."""
        statement = f"SELECT what FROM ({law.sql}) AS broken (what) LIMIT $3"  # noqa: S608 - a constant
        async with asyncio.timeout(LAW_SECONDS):
            return [row[0] for row in await self._pool.fetch(_window(statement), from_ms, to_ms, limit)]


def _window(statement: str) -> str:
    """Lets a law's times be given in Unix milliseconds."""
    for name in ("$1", "$2"):
        statement = statement.replace(name, f"(timestamptz 'epoch' + {name}::int8 * interval '1 millisecond')")
    return statement.replace("$3", "$3::int4")


_ADD_CORRECTION = """
INSERT INTO billing.corrections (id, tenant, amount_picos, reason, at)
VALUES ($1, $2, $3::text::numeric, $4, timestamptz 'epoch' + $5::int8 * interval '1 millisecond')
ON CONFLICT DO NOTHING RETURNING true
"""

_CORRECTION = """
SELECT id, tenant, amount_picos, reason, (extract(epoch FROM at) * 1000)::int8 FROM billing.corrections WHERE id = $1
"""

_CALLS = """
SELECT model, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), count(*), sum(input_tokens), sum(output_tokens),
       sum(cost_picos)
FROM billing.attempts
WHERE at >= timestamptz 'epoch' + $1::int8 * interval '1 millisecond'
  AND at < timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
GROUP BY 1, 2 ORDER BY 2, 1 LIMIT $3
"""
