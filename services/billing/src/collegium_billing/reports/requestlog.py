"""The request log: a tenant's settled requests, page by page, and how long they are kept.

Metadata only: what a request asked and got is in no row. One rule: a page is read by the tenant's own index, newest
first, and goes on after its last row, so that a page costs the same wherever it is.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from typing import Any, Final

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
import msgspec
from collegium_contracts import codec
from collegium_contracts.money import picos_to_usd
from collegium_contracts.reports import RequestRow, RequestsReply, RequestsRequest
from collegium_contracts.requests import UsageRequest

from collegium_billing.errors import QuestionError
from collegium_billing.reports import usage

ROWS_MAX: Final = 1_000
STATES: Final = ("completed", "failed", "canceled")
PAGE_SECONDS: Final = 4.0

_PAGE = """
SELECT task_id, project, key_id, (extract(epoch FROM created_at) * 1000)::int8 AS created_at_ms,
       (extract(epoch FROM settled_at) * 1000)::int8 AS settled_at_ms, state, stop_reason, error_code, model, rank,
       plan, calls.calls::int8, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, estimated,
       calls.cost_picos, charge_picos, reference_model, reference_picos, tags::text, cache_write_tokens
FROM (
    SELECT * FROM billing.tasks
    WHERE tenant = $1
      AND settled_at >= timestamptz 'epoch' + $2::int8 * interval '1 millisecond'
      AND settled_at < timestamptz 'epoch' + $3::int8 * interval '1 millisecond'
      AND ($4 = '' OR state = $4) AND ($5 = '' OR model = $5) AND ($6 = '' OR key_id = $6)
      AND ($7::int8 = 0
           OR (settled_at, task_id) < (timestamptz 'epoch' + $7::int8 * interval '1 millisecond', $8::text))
    ORDER BY settled_at DESC, task_id DESC LIMIT $9
) AS page
CROSS JOIN LATERAL (
    SELECT count(*) AS calls, coalesce(sum(cost_picos), 0) AS cost_picos
    FROM billing.attempts WHERE attempts.task_id = page.task_id
) AS calls
ORDER BY page.settled_at DESC, page.task_id DESC
"""
_decode_tags = msgspec.json.Decoder(dict[str, str]).decode


class RequestLog:
    """The log over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def page(self, asked: RequestsRequest) -> RequestsReply:
        """Returns a page; raises QuestionError, or TimeoutError after PAGE_SECONDS.

        A page that does not fit one message is cut, and says that more follows.
        """
        _check(asked)
        # Where a page ended bounds the scan by itself.
        to_ms = min(asked.to_ms, asked.before_ms + 1) if asked.before_ms else asked.to_ms
        async with (
            asyncio.timeout(PAGE_SECONDS),
            self._pool.acquire() as connection,
            connection.transaction(readonly=True),
        ):
            # A plan for any bounds would read by time alone, and most of the time is other tenants'.
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            found = await connection.fetch(
                _PAGE,
                asked.tenant,
                asked.from_ms,
                to_ms,
                asked.state,
                asked.model,
                asked.key_id,
                asked.before_ms,
                asked.before_id,
                asked.limit + 1,
            )
        rows = [_row(row) for row in found[: asked.limit]]
        return fitting(rows, has_more=len(found) > asked.limit)


def fitting(rows: list[RequestRow], *, has_more: bool) -> RequestsReply:
    """Returns as many of the rows as one message holds."""
    reply = RequestsReply(rows=rows, has_more=has_more)
    while len(codec.encode(reply)) > usage.REPLY_BYTES_MAX and len(rows) > 1:
        rows = rows[: len(rows) // 2]
        reply = RequestsReply(rows=rows, has_more=True)
    return reply


def _check(asked: RequestsRequest) -> None:
    usage.query(UsageRequest(tenant=asked.tenant, from_ms=asked.from_ms, to_ms=asked.to_ms))
    if asked.state and asked.state not in STATES:
        raise QuestionError("invalid_value", f"state must be one of {', '.join(STATES)}", "state")
    for name, value in (("model", asked.model), ("key", asked.key_id), ("cursor", asked.before_id)):
        if "\x00" in value:
            raise QuestionError("invalid_value", f"{name} must not hold NUL", name)
    if not 1 <= asked.limit <= ROWS_MAX:
        raise QuestionError("invalid_value", f"limit must be between 1 and {ROWS_MAX}", "limit")


def _row(row: asyncpg.Record) -> RequestRow:
    values: dict[str, Any] = dict(row)
    return RequestRow(
        cost_usd=picos_to_usd(int(values.pop("cost_picos"))),
        charged_usd=picos_to_usd(int(values.pop("charge_picos"))),
        reference_usd=picos_to_usd(int(values.pop("reference_picos"))),
        tags=_decode_tags(values.pop("tags")),
        **values,
    )
