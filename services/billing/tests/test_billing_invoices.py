"""Invoices: a function of their entries, rounded once, escaped, made once."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from collegium_billing.books.booking import book
from collegium_billing.books.store import Store
from collegium_billing.books.sums import DAY_MS
from collegium_billing.errors import QuestionError
from collegium_billing.identity.keys import Tenant
from collegium_billing.identity.store import IdentityStore
from collegium_billing.reports import invoices
from collegium_billing.reports.handlers import ReportQuestions
from collegium_billing.reports.invoice_store import InvoiceStore
from collegium_billing.reports.invoices import PICOS_PER_CENT, Entry, cents, document, invoice, month_of, page
from collegium_billing.reports.requestlog import RequestLog, fitting
from collegium_contracts.reports import InvoiceList, InvoiceMake, RequestRow, RequestsRequest
from collegium_store import open_pool
from hypothesis import given
from hypothesis import strategies as st

LATER_MS = 1_800_000_000_000
JANUARY = month_of("2026-01", LATER_MS)
ENTRIES = st.lists(
    st.builds(
        Entry, st.sampled_from("ab"), st.sampled_from("mn"), *[st.integers(0, 10**6)] * 4, st.integers(0, 10**16)
    ),
    max_size=8,
)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(database_url, application_name="billing-test")
    yield pool
    await pool.close()


def questions(pool: asyncpg.Pool, now_ms: int = LATER_MS) -> ReportQuestions:
    return ReportQuestions(IdentityStore(pool), RequestLog(pool), InvoiceStore(pool), lambda: now_ms)


@given(ENTRIES, st.randoms(use_true_random=False))
def test_the_same_entries_in_any_order_give_the_same_bytes(entries: list[Entry], chance: random.Random) -> None:
    first = invoice("acme", JANUARY, entries)
    again = invoice("acme", JANUARY, chance.sample(entries, len(entries)))
    assert document(first) == document(again)
    assert page(first) == page(again)
    assert invoices.read(document(first)) == first
    assert invoices.total_cents(first) == cents(sum(entry.amount_picos for entry in entries))


@pytest.mark.parametrize(
    ("halves", "rounded"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (7, 4), (-1, 0), (-3, -2)]
)
def test_half_a_cent_goes_to_the_even_one(halves: int, rounded: int) -> None:
    assert cents(halves * PICOS_PER_CENT // 2) == rounded
    assert cents(halves * PICOS_PER_CENT // 2 + 1) == (halves // 2 + 1 if halves % 2 else rounded)


def test_only_the_total_is_rounded_and_it_is_stated() -> None:
    entries = [Entry("p", model, 1, 0, 0, 0, PICOS_PER_CENT * 4 // 10) for model in "abc"]
    made = invoice("acme", JANUARY, entries)
    assert [line.amount_usd for line in made.lines] == ["0.004"] * 3
    assert (made.sum_usd, made.total_usd) == ("0.012", "0.01")
    assert "half to even" in made.rounding
    assert made.rounding.encode() in page(made)


def test_what_a_page_shows_is_escaped() -> None:
    made = invoice("acme", JANUARY, [Entry("<script>alert(1)</script>", '"m"&', 1, 2, 3, 4, 5)])
    assert b"<script>" not in page(made)
    assert b"&lt;script&gt;alert(1)" in page(made)


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "2026", "", "26-01", "2026-01 ", "٢٠26-01", "2027-01"])
def test_what_is_no_month_or_not_over_is_refused(month: str) -> None:
    with pytest.raises(QuestionError):
        month_of(month, LATER_MS)
    with pytest.raises(QuestionError):
        month_of("2026-01", JANUARY.to_ms + invoices.SETTLING_MS - 1)


async def test_an_invoice_adds_up_to_the_charges_and_stays_as_it_was_made(
    pool: asyncpg.Pool, make: Any, rng: random.Random
) -> None:
    store, asked = Store(pool), questions(pool)
    history = [event for number in range(30) for event in make.a_history(number, rng)]
    await store.book(book(history), [])
    await IdentityStore(pool).create_tenant(Tenant(id="t0", tier="pro", created_at_ms=0))

    first = await asked.make_invoice(InvoiceMake(tenant="t0", month="2026-01"))
    charged = sum(int(task.charge_picos) for task in book(history).tasks if task.tenant == "t0")
    assert cents(charged) == invoices.total_cents(invoices.read(first.document))
    late = make.settled(make.task("late", tenant="t0"), [make.call()], charge=10**15)
    await store.book(book([late]), [])
    again = await asked.make_invoice(InvoiceMake(tenant="t0", month="2026-01"))
    assert again == first
    shown = await asked.list_invoices(InvoiceList(tenant="t0", id="inv-t0-2026-01", as_html=True))
    assert shown.document.startswith(b"<!doctype html>")
    with pytest.raises(QuestionError):
        await asked.list_invoices(InvoiceList(tenant="other", id="inv-t0-2026-01"))
    with pytest.raises(QuestionError):
        await asked.make_invoice(InvoiceMake(tenant="absent", month="2026-01"))


async def test_the_log_gives_every_request_once_newest_first(pool: asyncpg.Pool, make: Any, rng: random.Random) -> None:
    history = [event for number in range(40) for event in make.a_history(number, rng)]
    # Several in one moment, so that a page ends among them.
    history += [make.settled(make.task(f"s{n}", tenant="t0"), [make.call(cost=n)]) for n in range(9)]
    await Store(pool).book(book(history), [])
    expected = [task for task in book(history).tasks if task.tenant == "t0"]
    asked = RequestsRequest(tenant="t0", from_ms=make.now_ms, to_ms=make.now_ms + 10 * DAY_MS, limit=4)
    found: list[RequestRow] = []
    before: dict[str, Any] = {}
    while True:
        reply = await questions(pool).requests(RequestsRequest(**(_fields(asked) | before)))
        found += reply.rows
        if not reply.has_more:
            break
        before = {"before_ms": reply.rows[-1].settled_at_ms, "before_id": reply.rows[-1].task_id}
    assert [row.task_id for row in found] == [
        task.task_id for task in sorted(expected, key=lambda one: (one.settled_at_ms, one.task_id), reverse=True)
    ]
    failed = await questions(pool).requests(RequestsRequest(**(_fields(asked) | {"state": "failed", "limit": 100})))
    assert {row.error_code for row in failed.rows} == {"upstream_error"}
    assert len(failed.rows) == sum(task.state == "failed" for task in expected)


@pytest.mark.parametrize(
    "fields", [{"state": "open"}, {"limit": 0}, {"limit": 1001}, {"model": "\x00"}, {"tenant": "A"}]
)
async def test_a_question_at_fault_is_refused(pool: asyncpg.Pool, fields: dict[str, Any]) -> None:
    with pytest.raises(QuestionError):
        await questions(pool).requests(RequestsRequest(**({"tenant": "t0", "from_ms": 0, "to_ms": 9} | fields)))


def test_a_page_that_does_not_fit_a_message_is_cut() -> None:
    values: dict[str, Any] = dict.fromkeys(RequestRow.__struct_fields__, "")
    row = RequestRow(**(values | {"tags": {"a": "b" * 10_000}, "settled_at_ms": 1}))
    reply = fitting([row] * 200, has_more=False)
    assert 0 < len(reply.rows) < 200
    assert reply.has_more


def _fields(asked: RequestsRequest) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in RequestsRequest.__struct_fields__}
