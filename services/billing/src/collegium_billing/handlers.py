"""Questions in, answers out: usage, possible spend; and what every answer of billing goes through.

The gateway has checked who asks and for which tenant; here every value is checked. One rule: a question at fault is
refused with a code of the outward catalogue and the field's name; a database that is away is ``billing_unavailable``,
which may be asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import Message
from collegium_contracts.requests import (
    PossibleSpendReply,
    PossibleSpendRequest,
    PossibleSpendRow,
    UsageReply,
    UsageRequest,
)
from collegium_store import is_transient

from collegium_billing.books.store import Store
from collegium_billing.errors import QuestionError
from collegium_billing.reports import usage
from collegium_billing.reports.usage_store import UsageStore

log = structlog.get_logger(__name__)

Q = TypeVar("Q", bound=Message)
Handler = Callable[[Any, str], Awaitable[Message]]

POSSIBLE_SPEND_ROWS_MAX = 4_000  # what one PossibleSpendReply holds


class Questions:
    """Answers what other services ask about the books."""

    def __init__(self, store: Store, reports: UsageStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._reports = reports
        self._now_ms = now_ms

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the answering function of each subject."""
        return {
            s.SVC_BILLING_USAGE: answering(UsageRequest, self.usage),
            s.SVC_BILLING_POSSIBLE_SPEND: answering(PossibleSpendRequest, self.possible_spend),
        }

    async def usage(self, asked: UsageRequest) -> UsageReply:
        """Answers a usage report."""
        query = usage.query(asked)
        reply = usage.reply(query, *await self._reports.usage(query, self._now_ms()))
        usage.check_size(len(codec.encode(reply)))
        return reply

    async def possible_spend(self, asked: PossibleSpendRequest) -> PossibleSpendReply:
        """Lists calls that were started and of whose end nothing is booked."""
        query = usage.query(UsageRequest(tenant=asked.tenant, from_ms=asked.from_ms, to_ms=asked.to_ms))
        found = await self._store.possible_spend(
            query.scope, query.from_ms, query.to_ms, limit=POSSIBLE_SPEND_ROWS_MAX + 1
        )
        rows = [
            PossibleSpendRow(
                task_id=one.task_id,
                attempt=one.attempt,
                delivery=one.delivery,
                tenant=one.tenant,
                model=one.model,
                started_at_ms=one.at_ms,
            )
            for one in found[:POSSIBLE_SPEND_ROWS_MAX]
        ]
        reply = PossibleSpendReply(rows=rows, is_cut=len(found) > POSSIBLE_SPEND_ROWS_MAX)
        usage.check_size(len(codec.encode(reply)))
        return reply


def answering(expected: type[Q], answer: Callable[[Q], Awaitable[Message]]) -> Handler:
    """Wraps an answer: checks the question's kind and turns this service's errors into refusals."""

    async def handle(asked: Any, _traceparent: str) -> Message:
        if not isinstance(asked, expected):
            raise RequestRefusedError("invalid_value", f"{expected.__name__} is asked here, not {type(asked).__name__}")
        try:
            return await answer(asked)
        except QuestionError as error:
            raise RequestRefusedError(error.code, error.message, error.param) from error
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("question not answered", asked=expected.__name__, error=type(error).__name__)
            raise RequestRefusedError("billing_unavailable", "the books cannot be read in time; ask again") from error

    return handle
