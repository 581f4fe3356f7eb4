import gzip
import json
from pathlib import Path

import pytest
from collegium_testing.simulator import Behaviour, RecordedUsage, Recording, Rule, ScriptError, read_script
from collegium_testing.simulator.answers import count_tokens, embed, tokens, unrecorded_answer
from collegium_testing.simulator.script import Script
from hypothesis import given
from hypothesis import strategies as st


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert count_tokens(text) == len(tokens(text))
    assert count_tokens(text) <= len(text.encode())


def test_an_ordinary_word_is_one_token() -> None:
    assert tokens("What is  the capital?") == ("What", " is", "  the", " capital?")


def test_unrecorded_answers_differ_by_model_prompt_and_choice_and_never_by_run() -> None:
    answers = {unrecorded_answer(model, prompt, choice) for model in "ab" for prompt in "xy" for choice in (0, 1)}
    assert len(answers) == 8
    assert unrecorded_answer("m", "Hello there", 0) == (
        "Hello there: orchard cedar meadow marble ribbon lagoon signal thistle."
    )


def test_vectors_are_unit_long_and_near_for_shared_words() -> None:
    def cosine(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed(one, 128), embed(other, 128), strict=True))

    assert cosine("red apple pie", "red apple pie") == pytest.approx(1)
    assert cosine("red apple pie", "red apple cake") > 0.5 > cosine("red apple pie", "engine oil") + 0.2
    assert cosine("", "") == pytest.approx(1)


def test_rules_are_taken_in_order_and_used_up() -> None:
    script = Script(Behaviour())
    script.replace_rules(
        [
            Rule("server_error", model="a", times=1),
            Rule(Behaviour(answer="hi"), match="hello"),
            {"behaviour": {"status": 429}, "model": "b"},
        ]
    )
    assert script.choose("a", "hello") == Behaviour(status=500)
    assert script.choose("a", "hello") == Behaviour(answer="hi")
    assert script.choose("b", "bye") == Behaviour(status=429)
    assert script.choose("c", "bye") is script.default
    assert script.models == {"a", "b"}


def test_a_rule_may_be_for_calls_that_are_told_something() -> None:
    script = Script(Behaviour())
    script.replace_rules([Rule(Behaviour(answer="short"), told="be brief"), Rule(Behaviour(answer="long"))])
    assert script.choose("m", "be brief") == Behaviour(answer="long")
    assert script.choose("m", "hello", "please be brief") == Behaviour(answer="short")


def test_a_behaviour_in_the_prompt_wins() -> None:
    script = Script(Behaviour())
    script.replace_rules([Rule("server_error")])
    assert script.choose("m", "please [[sim:hang]] now") == Behaviour(hang=True)
    assert script.choose("m", '[[sim:{"status": 401, "delay_ms": 5}]]') == Behaviour(status=401, delay_ms=5)


@pytest.mark.parametrize(
    "prompt", ["[[sim:nonsense]]", "[[sim:{]]", '[[sim:{"statu": 500}]]', '[[sim:{"status": 200}]]', "[[sim:"]
)
def test_a_wrong_behaviour_in_the_prompt_is_an_error(prompt: str) -> None:
    with pytest.raises(ScriptError):
        Script(Behaviour()).choose("m", prompt)


@pytest.mark.parametrize("rule", [{"behaviour": "nonsense"}, {"behaviour": {"delay_ms": -1}}, {}, {"behavior": "ok"}])
def test_wrong_rules_leave_the_old_ones(rule: dict[str, object]) -> None:
    script = Script(Behaviour())
    script.replace_rules([Rule("hang")])
    with pytest.raises(ScriptError):
        script.replace_rules([Rule("ok"), rule])
    assert script.choose("m", "x") == Behaviour(hang=True)


def test_recordings_answer_by_model_with_a_fallback_for_the_others() -> None:
    script = Script(Behaviour())
    general, special = RecordedUsage(cost_usd=0.5), RecordedUsage(prompt_tokens=9)
    script.record(
        [
            Recording("2+2?", {"a": "4", "b": None, "*": "five"}, general, {"a": special}),
            Recording("plain", {"a": "yes"}),
        ]
    )

    def said(model: str, prompt: str) -> tuple[str, RecordedUsage] | None:
        replay = script.replay(model, prompt)
        return None if replay is None else (replay.answer, replay.usage)

    assert said("a", " 2+2? \n") == ("4", special)
    assert said("b", "2+2?") is None
    assert said("c", "2+2?") == ("five", general)
    assert said("c", "plain") is None
    assert said("a", "other") is None


@pytest.mark.parametrize("name", ["script.jsonl", "script.jsonl.gz"])
def test_reads_recordings_and_rules_from_a_file(tmp_path: Path, name: str) -> None:
    recording = {"id": "x", "input": "2+2?", "domain": "sums", "answers": {"a": "4"}, "usage": {"cost_usd": 0.001}}
    lines = "\n".join([json.dumps(recording), "", json.dumps({"behaviour": "hang", "model": "b"})]).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    recordings, rules = read_script(path)
    assert recordings == [Recording("2+2?", {"a": "4"}, RecordedUsage(cost_usd=0.001))]
    assert rules == [Rule("hang", model="b")]


@pytest.mark.parametrize("line", ["{", "[]", '{"answers": {}}', '{"behaviour": "nonsense"}'])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"input": "a", "answers": {}}\n' + line)
    with pytest.raises(ScriptError, match=r"script\.jsonl:2: "):
        read_script(path)
