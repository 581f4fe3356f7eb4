"""Having a search's question put in other words: a chat of the tenant like any other, so held, booked once and shown.

One rule: a search never fails because no model could be asked; it goes on with the plain question, and says why.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from collegium_contracts.messages import TaskCompleted
from collegium_runtime.platform import Platform

from collegium_gateway.chat.chats import Chats
from collegium_gateway.chat.door import refusal
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from collegium_gateway.knowledge.rewording import State, asked_of_model, wordings_of
from collegium_gateway.tasks.views import answer_of, collegium_of

log = structlog.get_logger(__name__)

# Beyond its deadline a task is told of as late; nobody waits longer for that.
GRACE_SECONDS: Final = 1.0
NOTHING_USABLE: Final = "unusable_answer"
# Mistakes of who names a model: told, as going on would hide them. Everything else passes, or is the operator's.
_REFUSED: Final = frozenset({"unknown_model", "model_not_allowed", "no_eligible_model", "invalid_value"})


class Rewritten(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it; ``reason`` says why the question stayed plain: a code of the catalogue, or NOTHING_USABLE."""

    state: State
    queries: list[str] = []
    reason: str | None = None
    task_id: str | None = None
    model: str | None = None
    cost_usd: str | None = None
    cache: str | None = None


class Rewriter:
    """Asks a model of the roster, as the tenant."""

    def __init__(self, platform: Platform, chats: Chats) -> None:
        self._platform = platform
        self._chats = chats

    async def rewritten(
        self, principal: Principal, query: str, *, rewrite: bool, expand: int, model: str, traceparent: str | None
    ) -> Rewritten:
        """Returns further wordings of a question, or why there are none; raises ApiError for mistakes of the asker."""
        principal.need("chat")
        settings = self._platform.settings.search
        asked = asked_of_model(
            query, model or settings.rewrite_model, settings.rewrite_seconds, rewrite=rewrite, expand=expand
        )
        hop = self._platform.tracing.root(
            "search rewording", "internal", incoming_traceparent=traceparent, attributes=None
        )
        try:
            submitted = self._chats.tasks.prepare(principal, asked, waits=True, is_internal=True)
            if self._chats.tasks.gating.asks(submitted.task):
                raise ApiError("input_required", "a gate may ask people about the wording, and a search waits for none")
            chat = self._chats.begin(principal, asked, submitted)
            async with asyncio.timeout(settings.rewrite_seconds + GRACE_SECONDS):
                settled = await chat.complete(hop)
            if not isinstance(settled, TaskCompleted):
                raise refusal(settled)
        except (ApiError, TimeoutError) as error:
            code = error.code if isinstance(error, ApiError) else "deadline_exceeded"
            hop.fail(code)
            if model and code in _REFUSED:
                raise
            log.info("a question is searched as it is", tenant=principal.tenant, code=code)
            return Rewritten("plain", reason=code, task_id=_task_of(error))
        finally:
            hop.end()
        return self._found(settled, query, rewrite + expand)

    def _found(self, settled: TaskCompleted, query: str, wanted: int) -> Rewritten:
        answer = answer_of(self._platform.keyring, settled.task.tenant, settled.output)
        text = answer.choices[0].text if answer is not None and answer.choices else None
        queries = wordings_of(text or "", query, wanted)
        shown = collegium_of(settled, "")
        return Rewritten(
            state="done" if queries else "plain",
            queries=queries,
            reason=None if queries else NOTHING_USABLE,
            task_id=settled.task.id,
            model=settled.model,
            cost_usd=shown["cost_usd"],
            cache=shown["cache"],
        )


def _task_of(error: Exception) -> str | None:
    return (error.task_id or None) if isinstance(error, ApiError) else None
