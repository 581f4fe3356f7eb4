"""Questions of operators to the ledger: audits, corrections, calls as providers count them, versions of prices.

The gateway has checked who asks; here every value is checked. One rule: a question at fault is refused with a code of
the outward catalogue and the field's name, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.ledger import (
    CallsRow,
    LawRow,
    LedgerAudit,
    LedgerAuditReply,
    LedgerCalls,
    LedgerCallsReply,
    LedgerCorrect,
    LedgerCorrectReply,
    PriceList,
    PriceRow,
    PricesReply,
)
from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import UsageRequest
from collegium_contracts.state import MAX_BUDGET_PICOS
from collegium_settings.money import usd_to_picos

from collegium_billing.books.auditing import Auditor
from collegium_billing.books.ledger_store import Correction, LedgerStore
from collegium_billing.errors import QuestionError
from collegium_billing.handlers import Handler, answering
from collegium_billing.identity import keys
from collegium_billing.identity.store import IdentityStore
from collegium_billing.reports import usage

REASON_CHARS_MAX: Final = 500
PRICES_MAX: Final = 1_000
CALL_ROWS_MAX: Final = 5_000
# An audit up to now is one of what is open too, though the asker's clock be a little behind.
PRESENT_MS: Final = 60_000
_TIME_MAX_MS: Final = 253_402_300_799_000  # the year 9999, where timestamps end
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


class LedgerQuestions:
    """Answers what operators ask of the ledger."""

    def __init__(
        self, tenants: IdentityStore, ledger: LedgerStore, auditor: Auditor, now_ms: Callable[[], int]
    ) -> None:
        self._tenants = tenants
        self._ledger = ledger
        self._auditor = auditor
        self._now_ms = now_ms

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the answering function of each subject."""
        return {
            s.SVC_BILLING_LEDGER_AUDIT: answering(LedgerAudit, self.audit),
            s.SVC_BILLING_LEDGER_CORRECT: answering(LedgerCorrect, self.correct),
            s.SVC_BILLING_LEDGER_CALLS: answering(LedgerCalls, self.calls),
            s.SVC_BILLING_PRICES: answering(PriceList, self.prices),
        }

    async def audit(self, asked: LedgerAudit) -> LedgerAuditReply:
        """Tells how every money law stands for a time."""
        if not 0 <= asked.from_ms < asked.to_ms <= _TIME_MAX_MS:
            raise _invalid("from", "'from' must lie before 'to'")
        now_ms = self._now_ms()
        found = await self._auditor.audit(
            asked.from_ms, asked.to_ms, now_ms if asked.to_ms > now_ms - PRESENT_MS else None
        )
        rows = [
            LawRow(name=one.law.name, meaning=one.law.meaning, violations=one.violations, examples=list(one.examples))
            for one in found
        ]
        return LedgerAuditReply(laws=rows, first_ms=await self._ledger.first_ms())

    async def correct(self, asked: LedgerCorrect) -> LedgerCorrectReply:
        """Corrects what a tenant owes; asked again under the same id it changes nothing."""
        wanted = _correction(asked, self._now_ms())
        if await self._tenants.tenant(wanted.tenant) is None:
            raise QuestionError("not_found", f"there is no tenant {wanted.tenant}", "tenant")
        made, is_new = await self._ledger.correct(wanted)
        if made._replace(at_ms=0) != wanted._replace(at_ms=0):
            raise QuestionError("already_exists", f"correction {made.id} stands and says something else", "id")
        return LedgerCorrectReply(
            id=made.id,
            tenant=made.tenant,
            usd=picos_to_usd(made.amount_picos),
            reason=made.reason,
            at_ms=made.at_ms,
            is_new=is_new,
        )

    async def calls(self, asked: LedgerCalls) -> LedgerCallsReply:
        """Sums up booked calls by model and day."""
        query = usage.query(UsageRequest(tenant=None, from_ms=asked.from_ms, to_ms=asked.to_ms))
        found = await self._ledger.calls(query.from_ms, query.to_ms, CALL_ROWS_MAX + 1)
        if len(found) > CALL_ROWS_MAX:
            raise _invalid("from", f"there are more than {CALL_ROWS_MAX} models and days; ask for a shorter time")
        rows = [
            CallsRow(
                model=one.model,
                day=one.day,
                calls=one.calls,
                input_tokens=one.input_tokens,
                output_tokens=one.output_tokens,
                cost_usd=picos_to_usd(one.cost_picos),
            )
            for one in found
        ]
        reply = LedgerCallsReply(rows=rows)
        usage.check_size(len(codec.encode(reply)))
        return reply

    async def prices(self, asked: PriceList) -> PricesReply:
        """Lists the versions of a model's prices."""
        found = await self._ledger.prices(asked.model, PRICES_MAX)
        return PricesReply(prices=[PriceRow(version=one.version, cost=one.cost, charge=one.charge) for one in found])


def _correction(asked: LedgerCorrect, now_ms: int) -> Correction:
    if _ID.fullmatch(asked.id) is None:
        raise _invalid("id", "a correction's id has 1 to 64 characters of A-Z, a-z, 0-9, _, . and -")
    if not keys.is_tenant_id(asked.tenant):
        raise _invalid("tenant", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -")
    reason = asked.reason.strip()
    if not 0 < len(reason) <= REASON_CHARS_MAX or not reason.isprintable():
        raise _invalid("reason", f"say why in 1 to {REASON_CHARS_MAX} printable characters")
    try:
        picos = usd_to_picos(asked.usd)
    except ValueError:
        raise _invalid("usd", "an amount is a decimal number of dollars with at most 12 decimals") from None
    if not 0 < abs(picos) <= MAX_BUDGET_PICOS:
        raise _invalid("usd", f"a correction is not zero, and at most {picos_to_usd(MAX_BUDGET_PICOS)} dollars")
    return Correction(asked.id, asked.tenant, picos, reason, now_ms)


def _invalid(param: str, message: str) -> QuestionError:
    return QuestionError("invalid_value", message, param)
