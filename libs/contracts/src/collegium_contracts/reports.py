"""What the gateway asks billing for beside sums: the request log and invoices.

One rule: nothing of a prompt or an answer stands here; a request is told of by who asked, what answered and what it
cost.
"""

from __future__ import annotations

import msgspec

from collegium_contracts.messages import Message


class RequestsRequest(Message, frozen=True, kw_only=True):
    """Asks billing for a tenant's settled requests in [from, to), newest first.

    Empty filters pass everything. ``before_ms`` above 0, with ``before_id``, is where the page before this one ended.
    """

    tenant: str
    from_ms: int
    to_ms: int
    state: str = ""
    model: str = ""
    key_id: str = ""
    before_ms: int = 0
    before_id: str = ""
    limit: int = 100


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """One settled request. Money is decimal strings of dollars; tokens are over all its calls.

    ``created_at_ms`` is none where it was booked before it was kept. ``reference_model`` is the teacher that the charge
    is compared with, and ``reference_usd`` what it would have charged; empty and "0" where nothing is compared.
    """

    task_id: str
    project: str
    key_id: str
    created_at_ms: int | None
    settled_at_ms: int
    state: str
    stop_reason: str
    error_code: str
    model: str
    rank: str
    plan: str
    calls: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool
    cost_usd: str
    charged_usd: str
    reference_model: str
    reference_usd: str
    tags: dict[str, str]
    cache_write_tokens: int = 0


class RequestsReply(Message, frozen=True, kw_only=True):
    """A page of requests; ``has_more`` where another one follows its last row."""

    rows: list[RequestRow]
    has_more: bool = False


class InvoiceMake(Message, frozen=True, kw_only=True):
    """Asks billing for a tenant's invoice of a month (``2026-01``), made where it does not stand."""

    tenant: str
    month: str


class InvoiceList(Message, frozen=True, kw_only=True):
    """Asks billing for the invoices of a tenant, or of all; with an ``id``, for that one with its document."""

    tenant: str | None = None
    id: str = ""
    as_html: bool = False


class InvoiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One invoice: its total is whole cents, as a decimal string of dollars."""

    id: str
    tenant: str
    month: str
    total_usd: str
    made_at_ms: int


class InvoicesReply(Message, frozen=True, kw_only=True):
    """The invoices concerned, newest month first; ``document`` is the one asked for, in JSON or HTML."""

    invoices: list[InvoiceRow]
    document: bytes = b""


ReportRequest = RequestsRequest | InvoiceMake | InvoiceList
ReportReply = RequestsReply | InvoicesReply
