"""The ledger's SQL: adding transactions with their entries, corrections, and versions of prices.

One rule: a transaction and its entries are added by one statement, and only where its event id was never seen.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collegium_billing.booking import Books
from collegium_billing.ledger import Posting, postings

# Entries come from the rows that were inserted just now; those of a conflict are not among what it returns.
_POST = """
WITH new AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[]
    ) AS new (event_id, kind, at_ms, tenant, project, key_id, model, task, debit, credit, amount)
), added AS (
    INSERT INTO billing.transactions (event_id, kind, at, tenant)
    SELECT event_id, kind, timestamptz 'epoch' + at_ms * interval '1 millisecond', tenant FROM new
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
