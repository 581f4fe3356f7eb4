"""Answers that a model is to judge: workers ask here, because here a task can be submitted and paid for.

One rule: only a rule that the task itself names is asked about, and what comes of it goes back in words, never as an
error that says more.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from collegium_bus.errors import BusError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import held
from collegium_contracts.errors import ContractError
from collegium_contracts.gate_requests import TextsJudge, TextsJudged
from collegium_contracts.gates import reference
from collegium_gates.configured import version_of
from collegium_gates.errors import RuleFailedError
from collegium_gates.streaming import answer_unit
from collegium_runtime.platform import Platform

from collegium_gateway.admission.judging import ModelRules

log = structlog.get_logger(__name__)

# Each waits for a task of its own; whoever is not taken is told nothing, and its rule's time ends it.
MAX_AT_ONCE: Final = 256
_texts = msgspec.json.Decoder(list[str])


class AnswersJudged:
    """Answers the workers of one gateway. ``start`` and ``stop`` go with its doors."""

    def __init__(self, platform: Platform, models: ModelRules) -> None:
        self._platform = platform
        self._models = models
        self._subscription: int | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to answer; of several gateways one is asked."""
        connection = self._platform.connection
        self._subscription = connection.client.subscribe_raw(s.SVC_GATEWAY_JUDGE, self._on_question, connection.service)

    async def stop(self) -> None:
        """Answers no more; what was asked before is left to the asker's time."""
        if self._subscription is not None:
            self._platform.connection.client.unsubscribe_raw(self._subscription)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _on_question(self, _subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        if reply and len(self._answering) < MAX_AT_ONCE:
            task = asyncio.create_task(self._answer(reply.decode(), payload), name="judge-answer")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, reply: str, payload: bytes) -> None:
        try:
            question = codec.request.decode(payload)
            judged = await self._judged(question) if isinstance(question, TextsJudge) else None
        except (BusError, ContractError, ValueError, RecursionError) as error:
            log.warning("an answer cannot be judged", error=type(error).__name__)
            judged = TextsJudged(failure=f"its model cannot be asked: {type(error).__name__}")
        if judged is not None:
            self._platform.connection.publish(reply, codec.encode(judged))

    async def _judged(self, question: TextsJudge) -> TextsJudged:
        task, rule = question.task, question.rule
        named = task.gated.rules if task.gated is not None else ()
        if rule.kind != "llm" or reference(rule.name, version_of(rule)) not in named:
            return TextsJudged(failure="its task names no such rule")
        keyring = self._platform.keyring
        await held(keyring, task.tenant, question.texts)
        texts = _texts.decode(keyring.open(task.tenant, question.texts))
        try:
            findings = await self._models.decide(task, rule, [answer_unit(text) for text in texts], checks=True)
        except RuleFailedError as error:
            return TextsJudged(failure=str(error))
        return TextsJudged(reason=findings.reason)
