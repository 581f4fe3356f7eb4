"""Invoices as values: a month's entries → one document. Pure.

Not here: where entries come from and where invoices are kept (invoice_store). One rule: an invoice is a function of
the ledger's entries and the versions of prices alone, so that the same entries give the same bytes; no clock and no
chance has a part in it. Amounts are exact
to the pico-dollar; the total is their exact sum, rounded once to whole cents, half to even, which the invoice says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from collegium_contracts.money import PICOS_PER_USD, picos_to_usd

from collegium_billing.errors import QuestionError

if TYPE_CHECKING:
    from mako.template import Template

PICOS_PER_CENT: Final = PICOS_PER_USD // 100
# Events of a month's last moments are booked by then.
SETTLING_MS: Final = 3_600_000
ROUNDING: Final = "The total is the exact sum of all lines, rounded once to whole cents, half to even."
TOKENS_PRICED: Final = 1_000_000
NO_PRICES: Final[Mapping[tuple[str, int], Mapping[str, int]]] = MappingProxyType({})
_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])", re.ASCII)


class Entry(NamedTuple):
    """What was charged for one project's use of one model at one version of its prices (0: not known)."""

    project: str
    model: str
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    amount_picos: int
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    price_version: int = 0


class Adjustment(NamedTuple):
    """A correction of what a tenant owes."""

    id: str
    reason: str
    amount_picos: int


class Correction(msgspec.Struct, frozen=True):
    """A correction as an invoice shows it."""

    id: str
    reason: str
    amount_usd: str


class Line(msgspec.Struct, frozen=True):
    """A line of an invoice; ``amount_usd`` is exact.

    ``price_version`` is the version of the prices charged, and ``prices`` are its dollars per million tokens by class,
    and per ``call``.
    """

    project: str
    model: str
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    amount_usd: str
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    price_version: int = 0
    prices: dict[str, str] = {}


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice as its JSON document has it; ``begins`` and ``ends`` are dates of UTC, the second not included."""

    id: str
    tenant: str
    month: str
    begins: str
    ends: str
    currency: str
    lines: list[Line]
    corrections: list[Correction] = []
    sum_usd: str
    total_usd: str
    rounding: str


class Month(NamedTuple):
    """A month of UTC: from its first moment to that of the next."""

    name: str
    from_ms: int
    to_ms: int


def month_of(text: str, now_ms: int) -> Month:
    """Reads ``2026-01``; raises QuestionError where it is no month, or is not over for SETTLING_MS."""
    found = _MONTH.fullmatch(text)
    if found is None:
        raise QuestionError("invalid_value", "month is written like 2026-01", "month")
    year, number = int(found[1]), int(found[2])
    begins = datetime(year, number, 1, tzinfo=UTC)
    ends = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    month = Month(text, int(begins.timestamp()) * 1000, int(ends.timestamp()) * 1000)
    if now_ms < month.to_ms + SETTLING_MS:
        raise QuestionError(
            "invalid_value", f"{text} is not over, or was not an hour ago; invoice it afterwards", "month"
        )
    return month


def invoice_id(tenant: str, month: str) -> str:
    """Names the invoice of a tenant's month; there is one."""
    return f"inv-{tenant}-{month}"


def invoice(
    tenant: str,
    month: Month,
    entries: Iterable[Entry],
    adjustments: Iterable[Adjustment] = (),
    prices: Mapping[tuple[str, int], Mapping[str, int]] = NO_PRICES,
) -> Invoice:
    """Makes the invoice; the order of the entries does not matter, and entries of one line are added up.

    ``prices`` are the charges of the versions in the entries, pico-dollars by class.
    """
    lines: dict[tuple[str, str, int], Entry] = {}
    for entry in entries:
        key = (entry.project, entry.model, entry.price_version)
        standing = lines.get(key)
        lines[key] = entry if standing is None else _added(standing, entry)
    corrected = sorted(adjustments)
    total = sum(entry.amount_picos for entry in lines.values()) + sum(one.amount_picos for one in corrected)
    return Invoice(
        id=invoice_id(tenant, month.name),
        tenant=tenant,
        month=month.name,
        begins=_date(month.from_ms),
        ends=_date(month.to_ms),
        currency="USD",
        lines=[_line(entry, prices) for _, entry in sorted(lines.items())],
        corrections=[Correction(one.id, one.reason, picos_to_usd(one.amount_picos)) for one in corrected],
        sum_usd=picos_to_usd(total),
        total_usd=cents_to_usd(cents(total)),
        rounding=ROUNDING,
    )


def cents(picos: int) -> int:
    """Rounds pico-dollars to whole cents, half to even."""
    whole, rest = divmod(picos, PICOS_PER_CENT)
    return whole + (2 * rest > PICOS_PER_CENT or (2 * rest == PICOS_PER_CENT and whole % 2))


def total_cents(made: Invoice) -> int:
    """Returns an invoice's total in cents."""
    return int(made.total_usd.replace(".", ""))


def cents_to_usd(amount: int) -> str:
    """Writes cents as dollars with two decimals."""
    dollars, rest = divmod(abs(amount), 100)
    return f"{'-' if amount < 0 else ''}{dollars}.{rest:02d}"


def document(made: Invoice) -> bytes:
    """Writes an invoice as JSON, always the same for the same invoice."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def read(text: bytes) -> Invoice:
    """Reads what :func:`document` wrote."""
    return msgspec.json.decode(text, type=Invoice)


def page(made: Invoice) -> bytes:
    """Writes an invoice as one HTML page that needs nothing else; whatever it shows is escaped."""
    return str(_template().render_unicode(invoice=made)).encode()


def _added(first: Entry, second: Entry) -> Entry:
    numbers = [mine + more for mine, more in zip(first[2:-1], second[2:-1], strict=True)]
    return Entry._make((first.project, first.model, *numbers, first.price_version))


def _line(entry: Entry, prices: Mapping[tuple[str, int], Mapping[str, int]]) -> Line:
    charged = prices.get((entry.model, entry.price_version), {})
    return Line(
        *entry[:6],
        picos_to_usd(entry.amount_picos),
        entry.cache_write_tokens,
        entry.reasoning_tokens,
        entry.price_version,
        {
            name: picos_to_usd(picos if name == "call" else picos * TOKENS_PRICED)
            for name, picos in sorted(charged.items())
        },
    )


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


@cache
def _template() -> Template:
    from mako.template import Template  # noqa: PLC0415 - a tenth of billing's start, and few invoices are pages

    return Template(_PAGE, default_filters=["str", "h"], strict_undefined=True)  # noqa: S702 - "h" escapes


_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Invoice ${invoice.id}</title>
<style>
 body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f}
 table{border-collapse:collapse;width:100%}
 th,td{padding:.3rem .6rem;border-bottom:1px solid #d6d6de;text-align:right}
 th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}
 tfoot td{font-weight:600}
</style></head><body>
<h1>Invoice ${invoice.id}</h1>
<p>Tenant ${invoice.tenant}; from ${invoice.begins} to ${invoice.ends} (not included), UTC; in ${invoice.currency}.</p>
<table>
<thead><tr><th>Project</th><th>Model</th><th>Requests</th><th>Input tokens</th><th>of them cached</th>\
<th>Output tokens</th><th>Amount</th></tr></thead>
<tbody>
% for line in invoice.lines:
<tr><td>${line.project}</td><td>${line.model or '(no answer)'}</td><td>${line.requests}</td>\
<td>${line.input_tokens}</td><td>${line.cached_input_tokens}</td><td>${line.output_tokens}</td>\
<td>${line.amount_usd}</td></tr>
% endfor
% for one in invoice.corrections:
<tr><td>Correction</td><td colspan="5">${one.id}: ${one.reason}</td><td>${one.amount_usd}</td></tr>
% endfor
</tbody>
<tfoot>
<tr><td colspan="6">Exact sum</td><td>${invoice.sum_usd}</td></tr>
<tr><td colspan="6">Total</td><td>${invoice.total_usd}</td></tr>
</tfoot>
</table>
<p>${invoice.rounding}</p>
</body></html>
"""
