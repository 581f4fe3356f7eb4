"""Invoices in PostgreSQL: the entries that they are made of, and those that were made.

Not here: what an invoice says (invoices). One rule: an invoice is made once and never changed; what is booked for its
month afterwards is in the usage reports, and in no invoice.

``entries`` is the one place that says what was charged: the sums by the day, which hold every charge that was booked
and outlive the rows. Whoever keeps entries elsewhere changes this function alone.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts.reports import InvoiceRow

from collegium_billing import invoices
from collegium_billing.invoices import Entry, Invoice

INVOICES_MAX = 2_000
ENTRIES_SECONDS = 4.0

_ENTRIES = """
SELECT project, model, sum(requests)::numeric, sum(input_tokens), sum(cached_input_tokens), sum(output_tokens),
       sum(charge_picos)
FROM billing.usage_sums
WHERE seconds = 86400 AND tenant = $1
  AND begins_at >= timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
  AND begins_at < timestamptz 'epoch' + $3::int8 * interval '1 millisecond'
GROUP BY project, model
HAVING sum(requests) <> 0 OR sum(charge_picos) <> 0
"""
_KEEP = """
INSERT INTO billing.invoices (id, tenant, month, total_cents, document, made_at)
VALUES ($1, $2, $3, $4, $5, timestamptz 'epoch' + $6::int8 * interval '1 millisecond')
ON CONFLICT DO NOTHING
"""
_LIST = """
SELECT id, tenant, month, total_cents, (extract(epoch FROM made_at) * 1000)::int8 AS made_at_ms
FROM billing.invoices WHERE ($1::text IS NULL OR tenant = $1) AND ($2 = '' OR id = $2)
ORDER BY month DESC, tenant LIMIT $3
"""


class InvoiceStore:
    """Invoices over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def entries(self, tenant: str, from_ms: int, to_ms: int) -> list[Entry]:
        """Returns what a tenant was charged in [from, to), full days of UTC; TimeoutError after ENTRIES_SECONDS."""
        async with asyncio.timeout(ENTRIES_SECONDS):
            rows = await self._pool.fetch(_ENTRIES, tenant, from_ms, to_ms)
        return [Entry(row[0], row[1], *(int(value) for value in tuple(row)[2:])) for row in rows]

    async def keep(self, made: Invoice, total_cents: int, now_ms: int) -> None:
        """Keeps an invoice where none stands for its month."""
        text = invoices.document(made)
        await self._pool.execute(_KEEP, made.id, made.tenant, made.month, total_cents, text, now_ms)

    async def found(self, tenant: str | None, invoice_id: str = "") -> list[InvoiceRow]:
        """Lists invoices of a tenant, or of all, newest month first; with an id, that one."""
        rows = await self._pool.fetch(_LIST, tenant, invoice_id, INVOICES_MAX)
        return [
            InvoiceRow(
                id=row[0],
                tenant=row[1],
                month=row[2],
                total_usd=invoices.cents_to_usd(int(row[3])),
                made_at_ms=row[4],
            )
            for row in rows
        ]

    async def document(self, invoice_id: str) -> bytes:
        """Returns the document of an invoice that stands."""
        text: bytes = await self._pool.fetchval("SELECT document FROM billing.invoices WHERE id = $1", invoice_id)
        return text
