"""What the books mean as double entry: which postings a batch of rows makes. Pure.

A posting moves an amount of pico-dollars between two accounts and is one transaction of two entries, so it sums to zero
by its making. Accounts are text: ``tenant/<id>/receivable`` is what a tenant owes, ``revenue/<model>`` what was earned,
``provider/<model>/payable`` what we owe a model's endpoint, ``cost/<model>`` what calls cost that served somebody,
``waste/<model>`` what calls cost that served nobody, ``adjustment/<tenant>`` what operators corrected.

One rule: what is posted depends on a row alone, never on what was booked before; so events that come twice, late or in
another order make the same ledger. A call is therefore posted as a cost always, and the verdict that it was waste is a
transaction of its own, whether the two came together or not.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_billing.books.booking import AttemptRow, Books, TaskRow
from collegium_billing.books.sums import NO_MODEL


class Posting(NamedTuple):
    """One transaction: ``amount_picos`` (never 0) to ``debit`` and its negative to ``credit``.

    ``event_id`` is unique for good. The amount is a decimal string, for it may exceed 64 bits. What was made of tokens
    has them beside it: those of a call, or of all calls of a charged task, and the version of prices.
    """

    event_id: str
    kind: str
    at_ms: int
    tenant: str
    project: str
    key_id: str
    model: str
    task: str
    debit: str
    credit: str
    amount_picos: str
    price_version: int | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


def _made_of(row: AttemptRow | TaskRow) -> tuple[int, ...]:
    return (
        row.price_version,
        row.input_tokens,
        row.cached_input_tokens,
        row.cache_write_tokens,
        row.output_tokens,
        row.reasoning_tokens,
    )


def postings(books: Books) -> list[Posting]:
    """Returns what a batch of rows adds to the ledger, sorted by event id; what costs nothing posts nothing."""
    made: list[Posting] = []
    for call in books.attempts:
        picos = call.cost_picos
        if picos == "0":
            continue
        task, model, at_ms, name = call.task_id, call.model or NO_MODEL, call.at_ms, call[:3]
        tenant, project, key = call.tenant, call.project, call.key_id
        of = f"{name[0]}/{name[1]}/{name[2]}"
        cost, payable = f"cost/{model}", f"provider/{model}/payable"
        event = f"call/{of}"
        made.append(
            Posting(event, "call", at_ms, tenant, project, key, model, task, cost, payable, picos, *_made_of(call))
        )
        if call.wasted:
            waste = f"waste/{model}"
            made.append(Posting(f"waste/{of}", "waste", at_ms, tenant, project, key, model, task, waste, cost, picos))
    for row in books.tasks:
        picos = row.charge_picos
        if picos == "0":
            continue
        task, model, at_ms, tenant = row.task_id, row.model or NO_MODEL, row.settled_at_ms, row.tenant
        owed, earned = receivable(tenant), f"revenue/{model}"
        of = (tenant, row.project, row.key_id, model, task)
        made.append(Posting(f"charge/{task}", "charge", at_ms, *of, owed, earned, picos, *_made_of(row)))
    # Two replicas that add the same transactions in different orders would deadlock.
    made.sort(key=lambda one: one.event_id)
    return made


def correction(correction_id: str, tenant: str, amount_picos: int, at_ms: int) -> Posting:
    """Returns a correction of what a tenant owes: above zero it owes more, below less."""
    owed, adjusted = receivable(tenant), f"adjustment/{tenant}"
    amount = str(amount_picos)
    return Posting(f"correction/{correction_id}", "correction", at_ms, tenant, "", "", "", "", owed, adjusted, amount)


def receivable(tenant: str) -> str:
    """Returns the account of what a tenant owes."""
    return f"tenant/{tenant}/receivable"
