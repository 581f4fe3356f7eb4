"""What follows from findings: who blocks, what is taken out, what is put back."""

from __future__ import annotations

import json

import pytest
from collegium_contracts.gates import GateRule
from collegium_gates import deciding, units
from collegium_gates.configured import Registry, version_of
from collegium_gates.deciding import MAX_TOKENS, Outcome, decide
from collegium_gates.errors import UnknownRuleError
from collegium_gates.evaluating import evaluate
from collegium_gates.finding import Findings, Found, readings
from collegium_settings.gates import GateSettings

SALT = "ab12"


def rule(name: str = "it", kind: str = "pii", **fields) -> GateRule:
    return GateRule(name=name, kind=kind, on=["request"], **fields)


def checked(messages, *rules: GateRule):
    read = units.of_messages(messages)
    outcomes = [Outcome(one, evaluate(one, readings(read))) for one in rules]
    verdict = decide(outcomes, read, "request", SALT)
    deciding.apply(messages, read, verdict)
    return verdict


def test_the_first_rule_that_blocks_gives_its_name() -> None:
    found = Findings("something", [Found(0, 0, 1, "X")])
    text = [units.Unit("text", "user", (units.Segment((0,), 0, 4),))]
    outcomes = [Outcome(rule("a", action="flag"), found), Outcome(rule("b"), found), Outcome(rule("c"), found)]
    verdict = decide(outcomes, text, "request", SALT)
    assert [one.result for one in verdict.decisions] == ["flagged", "blocked", "blocked"]
    assert verdict.block is not None
    assert verdict.block.rule == "b"
    assert verdict.changes == {}


@pytest.mark.parametrize(
    ("required", "result", "blocks"), [(True, "failed_closed", True), (False, "failed_open", False)]
)
def test_a_rule_that_cannot_be_evaluated(required: bool, result: str, blocks: bool) -> None:
    verdict = decide([Outcome(rule(required=required), failure="it threw")], [], "answer", SALT)
    assert [(one.result, one.reason) for one in verdict.decisions] == [(result, "it threw")]
    assert (verdict.block is not None) is blocks


def test_words_are_taken_out_and_put_back() -> None:
    messages = [{"role": "user", "content": "I am jane@example.com; again: jane@example.com or j@example.org"}]
    verdict = checked(messages, rule(action="tokenise"))
    sent = messages[0]["content"]
    assert sent == "I am <EMAIL_1_ab12>; again: <EMAIL_1_ab12> or <EMAIL_2_ab12>"
    assert (
        deciding.restored("Hello <EMAIL_2_ab12>, <EMAIL_9_zzzz>", verdict.vault)
        == "Hello j@example.org, <EMAIL_9_zzzz>"
    )
    assert json.loads(deciding.restored_json('{"to": "<EMAIL_1_ab12>"}', {"<EMAIL_1_ab12>": 'a"b'})) == {"to": 'a"b'}


def test_what_one_rule_takes_out_for_good_another_does_not_keep() -> None:
    messages = [{"role": "user", "content": "card 4111 1111 1111 1111, mail a@example.com"}]
    verdict = checked(messages, rule("r", action="redact", entities=["CARD"]), rule("t", action="tokenise"))
    assert messages[0]["content"] == "card [CARD], mail <EMAIL_1_ab12>"
    assert list(verdict.vault.values()) == ["a@example.com"]


def test_a_place_over_several_parts_is_taken_out_of_all() -> None:
    parts = [
        {"type": "text", "text": "mail ja"},
        {"type": "text", "text": "ne@example"},
        {"type": "text", "text": ".com!"},
    ]
    messages = [{"role": "user", "content": parts}]
    checked(messages, rule(action="redact"))
    assert [part["text"] for part in messages[0]["content"]] == ["mail [EMAIL]", "", "!"]


def test_what_stands_where_nothing_can_be_taken_out_blocks() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"jane@example.com": 1}}}
    verdict = checked([{"role": "assistant", "content": None, "tool_calls": [call]}], rule(action="redact"))
    assert verdict.block is not None


def test_every_text_of_a_request_is_read_and_pictures_are_not() -> None:
    messages = [
        {
            "role": "user",
            "name": "n",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        },
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}]},
        {"role": "tool", "tool_call_id": "t", "content": "result"},
        {"role": "user", "content": [{"type": "other", "strange": ["deep"]}, "bare"]},
    ]
    texts = {unit.text for unit in units.of_messages(messages)}
    assert {"n", "https://a.example/x.png", "t", "result", "deep", "bare"} <= texts
    assert not any("AAAA" in text for text in texts)
    assert [unit.text for unit in units.of_messages(["first", "second"])] == ["first", "second"]
    tool = {"type": "function", "function": {"name": "f", "description": "hidden here"}}
    assert "hidden here" in {unit.text for unit in units.of_parameters([tool, None, "stop"])}


def test_too_many_words_to_hide_block() -> None:
    text = " ".join(f"u{number}@example.com" for number in range(MAX_TOKENS + 1))
    verdict = checked([{"role": "user", "content": text}], rule(action="tokenise"))
    assert verdict.block is not None


def test_a_rule_sees_the_roles_that_it_is_for() -> None:
    messages = [{"role": "system", "content": "a@example.com"}, {"role": "user", "content": "b@example.com"}]
    checked(messages, rule(action="redact", roles=["user"]))
    assert [message["content"] for message in messages] == ["a@example.com", "[EMAIL]"]


def test_a_version_is_of_everything_that_a_rule_says() -> None:
    one, other = rule(threshold=0.1), rule(threshold=0.2)
    assert version_of(one) == version_of(rule(threshold=0.1)) != version_of(other)


def test_rules_are_named_in_order_and_once() -> None:
    registry = Registry({"b": GateSettings(kind="pii"), "a": GateSettings(kind="pii", everyone=False)})
    names = [one.partition("@")[0] for one in registry.named(["a", "age_21", "b", "a"])]
    assert names == ["b", "a", "age_21"]
    assert {registry.by_reference[one].name for one in registry.named([])} == {"b"}
    with pytest.raises(UnknownRuleError):
        registry.named(["nothing"])


def test_a_configured_rule_changes_a_bundled_one() -> None:
    registry = Registry({"age_21": GateSettings(trust=("jwt",), everyone=False)})
    assert (registry.rules["age_21"].minimum, registry.rules["age_21"].trust) == (21, ["jwt"])
    assert registry.named([]) == []
