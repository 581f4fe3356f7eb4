"""Answers that models decide about: asked about once, and what keeps a model from deciding is the rule's failure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from collegium_contracts.gate_requests import TEXTS_BYTES_MAX
from collegium_contracts.gates import GateRule
from collegium_contracts.messages import TaskRef
from collegium_gates.errors import RuleFailedError
from collegium_gates.finding import NOTHING, Findings
from collegium_gates.streaming import answer_unit
from collegium_worker_pool.calling.judging import AskGateway, Judging
from collegium_worker_pool.upstream.places import Place

RULE = GateRule(name="judged", kind="llm", on=["answer"], criteria="It is no poem.")
TASK = TaskRef(id="tsk_1", tenant="acme", created_at_ms=1, deadline_ms=2, model="auto")


class Counted(AskGateway):
    """Counts what would be asked of a gateway."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def decide(self, task: TaskRef, rule: GateRule, texts: Any) -> Findings:
        self.asked.append(texts[0])
        return NOTHING


async def test_the_same_answer_is_asked_about_once() -> None:
    gateway = Counted()
    judging = Judging(gateway, TASK)
    for text in ("Roses.", "Roses.", "Violets."):
        assert await judging.decide(RULE, [answer_unit(text)]) == NOTHING
    assert gateway.asked == ["Roses.", "Violets."]


async def test_a_judgement_that_failed_is_not_asked_and_paid_for_again() -> None:
    class Failing(Counted):
        async def decide(self, task: TaskRef, rule: GateRule, texts: Any) -> Findings:
            await super().decide(task, rule, texts)
            raise RuleFailedError("it said neither")

    gateway = Failing()
    judging = Judging(gateway, TASK)
    for _ in range(2):
        with pytest.raises(RuleFailedError, match="it said neither"):
            await judging.decide(RULE, [answer_unit("Roses.")])
    assert gateway.asked == ["Roses."]


async def test_an_answer_that_no_model_is_shown_is_no_decision() -> None:
    gateway: Any = object.__new__(AskGateway)
    with pytest.raises(RuleFailedError, match="which no model is shown"):
        await gateway.decide(TASK, RULE, ["x" * TEXTS_BYTES_MAX])


async def test_a_place_is_given_back_once() -> None:
    permits = asyncio.Semaphore(1)
    async with Place(permits) as place:
        assert permits.locked()
        place.give_back()
        async with asyncio.timeout(30), Place(permits):
            place.give_back()
            assert permits.locked()
    assert not permits.locked()
    await permits.acquire()
    assert permits.locked()
