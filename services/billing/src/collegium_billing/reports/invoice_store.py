"""Invoices in PostgreSQL: the ledger's entries that they are made of, and those that were made.

Not here: what an invoice says (invoices). One rule: an invoice is made once and never changed; what is booked for its
month afterwards is in the usage reports, and in no invoice.

An invoice is read from the ledger and from versions of prices, which only grow, and from nothing that is purged.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import msgspec
from collegium_contracts.reports import InvoiceRow

from collegium_billing.reports import invoices
from collegium_billing.reports.invoices import Adjustment, Entry, Invoice, Month

INVOICES_MAX = 2_000
ENTRIES_SECONDS = 20.0

# A task that was charged has one transaction; what it was made of stands with it.
_ENTRIES = """
SELECT project, CASE WHEN model = '-' THEN '' ELSE model END, count(*), coalesce(sum(input_tokens), 0),
       coalesce(sum(cached_input_tokens), 0), coalesce(sum(output_tokens), 0), sum(amount_picos),
       coalesce(sum(cache_write_tokens), 0), coalesce(sum(reasoning_tokens), 0), coalesce(price_version, 0)
FROM billing.transactions AS posted
JOIN billing.entries AS owed ON transaction = posted.id AND account = 'tenant/' || posted.tenant || '/receivable'
WHERE posted.tenant = $1 AND kind IN ('charge', 'correction') AND kind = 'charge'
  AND at >= timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
  AND at < timestamptz 'epoch' + $3::int8 * interval '1 millisecond'
GROUP BY project, model, coalesce(price_version, 0)
"""
_CORRECTIONS = """
SELECT made.id, made.reason, amount_picos FROM (
    SELECT substr(event_id, length('correction/') + 1) AS id, owed.amount_picos
    FROM billing.transactions AS posted
    JOIN billing.entries AS owed ON transaction = posted.id AND account = 'tenant/' || posted.tenant || '/receivable'
    WHERE posted.tenant = $1 AND kind IN ('charge', 'correction') AND kind = 'correction'
      AND at >= timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
      AND at < timestamptz 'epoch' + $3::int8 * interval '1 millisecond'
) AS posted JOIN (SELECT id, reason FROM billing.corrections) AS made USING (id)
"""
_PRICES = """
SELECT model, version, charge::text FROM billing.prices
JOIN unnest($1::text[], $2::int8[]) AS wanted (model, version) USING (model, version)
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

    async def invoice(self, tenant: str, month: Month) -> Invoice:
        """Makes a tenant's invoice of a month from the ledger; TimeoutError after ENTRIES_SECONDS."""
        bounds = (tenant, month.from_ms, month.to_ms)
        async with (
            asyncio.timeout(ENTRIES_SECONDS),
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            found = await connection.fetch(_ENTRIES, *bounds)
            entries = [Entry(row[0], row[1], *(int(value) for value in tuple(row)[2:])) for row in found]
            corrected = [
                Adjustment(row[0], row[1], int(row[2])) for row in await connection.fetch(_CORRECTIONS, *bounds)
            ]
            versions = sorted({(entry.model, entry.price_version) for entry in entries})
            rows = await connection.fetch(_PRICES, [one[0] for one in versions], [one[1] for one in versions])
        prices = {(row[0], row[1]): msgspec.json.decode(row[2], type=dict[str, int]) for row in rows}
        return invoices.invoice(tenant, month, entries, corrected, prices)

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
