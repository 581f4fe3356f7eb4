"""Questions about requests and invoices; the gateway has checked who asks and for which tenant.

One rule: an invoice that stands is what is answered, also to whoever asks for it to be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.reports import InvoiceList, InvoiceMake, InvoicesReply, RequestsReply, RequestsRequest

from collegium_billing.errors import QuestionError
from collegium_billing.handlers import Handler, answering
from collegium_billing.identity import keys
from collegium_billing.identity.store import IdentityStore
from collegium_billing.reports import invoices, usage
from collegium_billing.reports.invoice_store import InvoiceStore
from collegium_billing.reports.requestlog import RequestLog


class ReportQuestions:
    """Answers them."""

    def __init__(self, tenants: IdentityStore, log: RequestLog, kept: InvoiceStore, now_ms: Callable[[], int]) -> None:
        self._tenants = tenants
        self._log = log
        self._invoices = kept
        self._now_ms = now_ms

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the answering function of each subject."""
        return {
            s.SVC_BILLING_REQUESTS: answering(RequestsRequest, self.requests),
            s.SVC_BILLING_INVOICE_MAKE: answering(InvoiceMake, self.make_invoice),
            s.SVC_BILLING_INVOICE_LIST: answering(InvoiceList, self.list_invoices),
        }

    async def requests(self, asked: RequestsRequest) -> RequestsReply:
        """Answers a page of the request log."""
        return await self._log.page(asked)

    async def make_invoice(self, asked: InvoiceMake) -> InvoicesReply:
        """Makes the invoice of a month where none stands."""
        _check_tenant(asked.tenant)
        month = invoices.month_of(asked.month, self._now_ms())
        invoice_id = invoices.invoice_id(asked.tenant, month.name)
        standing = await self._invoices.found(asked.tenant, invoice_id)
        if not standing:
            if await self._tenants.tenant(asked.tenant) is None:
                raise QuestionError("not_found", f"there is no tenant {asked.tenant}", "tenant")
            made = await self._invoices.invoice(asked.tenant, month)
            usage.check_size(len(invoices.page(made)))
            await self._invoices.keep(made, invoices.total_cents(made), self._now_ms())
            standing = await self._invoices.found(asked.tenant, invoice_id)
        return InvoicesReply(invoices=standing, document=await self._invoices.document(invoice_id))

    async def list_invoices(self, asked: InvoiceList) -> InvoicesReply:
        """Lists invoices, or shows one."""
        if asked.tenant is not None:
            _check_tenant(asked.tenant)
        if not asked.id:
            reply = InvoicesReply(invoices=await self._invoices.found(asked.tenant))
            usage.check_size(len(codec.encode(reply)))
            return reply
        found = [] if "\x00" in asked.id else await self._invoices.found(asked.tenant, asked.id)
        if not found:
            raise QuestionError("not_found", f"there is no invoice {asked.id[:80]!r}", "id")
        text = await self._invoices.document(asked.id)
        return InvoicesReply(invoices=found, document=invoices.page(invoices.read(text)) if asked.as_html else text)


def _check_tenant(tenant: str) -> None:
    if not keys.is_tenant_id(tenant):
        raise QuestionError("invalid_value", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -", "tenant")
