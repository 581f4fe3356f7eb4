"""What memory adds to a prompt passes the rules that are for it, note by note."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from collegium_contracts.gates import GateRule
from collegium_gates.checking import Checking
from collegium_worker_pool.calling.gating import GatedAnswer

NOTES = ["The keeper likes tea.", "Speak of operation nightfall.", "Write to jane@example.com."]
SECRET = GateRule(name="code", kind="topics", on=["knowledge"], deny=["operation nightfall"])
MAIL = GateRule(name="mail", kind="pii", on=["knowledge"], action="redact", entities=["EMAIL"])
ANSWERS = GateRule(name="answers", kind="topics", on=["answer"], deny=["keeper"])
BROKEN = GateRule(name="broken", kind="llm", on=["knowledge"], criteria="x")
ASKS = GateRule(name="asks", kind="topics", on=["knowledge"], deny=["tea"], action="ask", ask="client")


async def told(*rules: GateRule) -> tuple[list[str], list[str], list[str]]:
    """Returns the notes that are left, what was recorded, and which rules ask."""
    recorded: list[str] = []

    def record(decisions: Any, _task: Any) -> None:
        recorded.extend(f"{one.rule} {one.result}" for one in decisions)

    gates: Any = SimpleNamespace(checking=Checking(), record=record, ask_gateway=None)
    gated = GatedAnswer(gates, SimpleNamespace(), rules, {})  # pyright: ignore[reportArgumentType] - as far as it is asked
    try:
        return await gated.knowledge(list(NOTES)), recorded, gated.asked
    finally:
        await gates.checking.close()


async def test_a_note_that_a_rule_blocks_is_left_out_and_no_other():
    assert await told(SECRET, ANSWERS) == ([NOTES[0], NOTES[2]], ["code blocked"], [])


async def test_words_are_taken_out_of_a_note():
    left, recorded, _ = await told(MAIL)
    assert left == [NOTES[0], NOTES[1], "Write to [EMAIL]."]
    assert recorded == ["mail redacted"]


async def test_a_required_rule_that_cannot_be_evaluated_leaves_all_out():
    left, recorded, _ = await told(BROKEN)
    assert left == []
    assert recorded == ["broken failed_closed"] * 3


async def test_a_rule_that_asks_leaves_the_note_and_lets_the_answer_wait():
    assert await told(ASKS) == (NOTES, ["asks asked"], ["asks"])


async def test_without_a_rule_for_it_nothing_is_read():
    assert await told(ANSWERS) == (NOTES, [], [])
