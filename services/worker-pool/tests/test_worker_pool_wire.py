"""Requests out and answers in, as OpenAI's chat completions write them."""

import json

import msgspec
import pytest
from collegium_contracts.messages import Sampling
from collegium_worker_pool.upstream.wire import (
    StreamedAnswer,
    answer_of,
    decode_chunk,
    decode_completion,
    joined,
    logprob_of,
    request_body,
    taught_of,
)
from hypothesis import given
from hypothesis import strategies as st

PROMPT = b'[ {"role":"user",  "content":"caf\\u00e9 \xe2\x98\x95", "unknown": [1.0, 1e3]} ]'
TOOLS = b'[{"type":"function","function":{"name":"f","parameters":{"b":1, "a":2}}}]'


def sent(prompt: bytes = PROMPT, history: bytes | None = None, **sampling) -> bytes:
    return request_body("upstream", prompt, history, Sampling(**({"max_tokens": 5} | sampling)))


def test_messages_and_tools_pass_byte_for_byte():
    choice, form = b'{"type": "function", "function": {"name":"f"}}', b'{"type" : "json_object"}'
    body = sent(tools=TOOLS, tool_choice=choice, response_format=form)
    for part in (PROMPT, TOOLS, choice, form):
        assert part in body


def test_the_bound_is_always_sent_and_nothing_that_was_not_asked_for():
    assert json.loads(sent()) == {"model": "upstream", "messages": json.loads(PROMPT), "max_tokens": 5}
    assert json.loads(sent(max_tokens=None))["max_tokens"] == 1


def test_every_parameter_of_the_sampling_is_sent():
    asked = {
        "temperature": 0.0,
        "top_p": 0.5,
        "frequency_penalty": 0.25,
        "presence_penalty": -0.5,
        "seed": 0,
        "stop": ["a"],
        "n": 3,
    }
    body = json.loads(sent(**asked))
    assert {name: body[name] for name in asked} == asked


def test_a_stream_asks_for_its_usage():
    body = json.loads(sent(stream=True))
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_history_comes_before_the_prompt_and_unchanged():
    history = b'[{"role":"user","content":"one"},{"role":"assistant","content":"two", "x":1}]'
    messages = json.loads(sent(history=history))["messages"]
    assert [message["content"] for message in messages] == ["one", "two", "café ☕"]
    assert b'{"role":"assistant","content":"two", "x":1}' in sent(history=history)
    assert json.loads(sent(history=b"[]"))["messages"] == json.loads(PROMPT)


def test_a_whole_answers_choices_come_in_their_order():
    completion = decode_completion(
        msgspec.json.encode(
            {
                "model": "real-name",
                "choices": [
                    {"index": 1, "message": {"content": "second"}, "finish_reason": "length"},
                    {"index": 0, "message": {"content": None, "tool_calls": [{"id": "c"}]}, "finish_reason": None},
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2},
            }
        )
    )
    first, second = answer_of(completion).choices
    assert (first.text, first.finish_reason, [bytes(call) for call in first.tool_calls or ()]) == (
        None,
        "stop",
        [b'{"id":"c"}'],
    )
    assert (second.text, second.finish_reason, second.tool_calls) == ("second", "length", None)
    assert (completion.model, completion.usage.completion_tokens) == ("real-name", 2)


def put_together(*chunks: dict) -> tuple[StreamedAnswer, str]:
    streamed = StreamedAnswer()
    passed_on = "".join(streamed.add(decode_chunk(msgspec.json.encode(chunk))) for chunk in chunks)
    return streamed, passed_on


def text(content: str, index: int = 0, finish: str | None = None) -> dict:
    return {"choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish}]}


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=30))
def test_interleaved_choices_are_put_together_and_the_first_is_passed_on(pieces):
    streamed, passed_on = put_together(
        *(text("", index) for index in range(3)),
        *(text(content, index) for index, content in pieces),
        *(text("", index, "stop") for index in range(3)),
    )
    wanted = ["".join(content for at, content in pieces if at == index) for index in range(3)]
    assert [choice.text for choice in streamed.answer().choices] == wanted
    assert (passed_on, streamed.text, streamed.finished) == (wanted[0], wanted[0], True)


def test_tool_calls_come_in_pieces_and_in_parallel():
    def tool(index: int, id_: str | None = None, name: str | None = None, arguments: str | None = None) -> dict:
        call = {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    streamed, passed_on = put_together(
        tool(0, "call-a", "weather", ""),
        tool(1, "call-b", "time"),
        tool(0, arguments='{"city":'),
        tool(1, arguments="{}"),
        tool(0, arguments='"Paris"}'),
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]},
        text("", finish="tool_calls"),
    )
    (choice,) = streamed.answer().choices
    calls = [json.loads(bytes(call)) for call in choice.tool_calls or ()]
    assert [(call["id"], call["type"], call["function"]) for call in calls] == [
        ("call-a", "function", {"name": "weather", "arguments": '{"city":"Paris"}'}),
        ("call-b", "function", {"name": "time", "arguments": "{}"}),
    ]
    assert (choice.text, choice.finish_reason, passed_on) == (None, "tool_calls", "")


def test_an_empty_answer_is_an_empty_text_not_none():
    streamed, _ = put_together(text("", finish="stop"))
    assert streamed.answer().choices[0].text == ""


def test_usage_and_model_come_from_whatever_chunk_has_them():
    streamed, _ = put_together(
        {"model": "real-name", **text("a")},
        text("b", finish="length"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    )
    assert (streamed.model, streamed.usage.prompt_tokens) == ("real-name", 3)
    assert streamed.answer().choices[0].finish_reason == "length"


def test_a_stream_is_finished_when_every_choice_said_so():
    assert put_together()[0].finished is False
    assert put_together(text("a"))[0].finished is False
    assert put_together(text("a", 0, "stop"), text("b", 1))[0].finished is False
    assert put_together(text("a", 0, "stop"), text("b", 1, "stop"))[0].finished is True


@pytest.mark.parametrize("body", [b"{}", b'{"choices":"none"}', b'{"choices":[{"index":0}]}', b"<html>", b""])
def test_what_is_no_completion_does_not_decode(body):
    with pytest.raises((msgspec.DecodeError, ValueError)):
        decode_completion(body)


def joined_messages(prompt, *notes, history=None):
    return msgspec.json.decode(joined(msgspec.json.encode(prompt), history, notes))


def test_notes_join_the_clients_instructions_wherever_they_stand_and_lead():
    said, asked = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
    together = {"role": "system", "content": "Be brief.\n\none\n\ntwo"}
    assert joined_messages([said, asked], "one", "two") == [together, asked]
    earlier = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "yes"}]
    history = msgspec.json.encode(earlier)
    assert joined_messages([said, asked], "one", "two", history=history) == [together, *earlier, asked]


def test_notes_are_instructions_where_the_client_gave_none():
    asked = {"role": "user", "content": "Hi"}
    assert joined_messages([asked], "one") == [{"role": "system", "content": "one"}, asked]
    parts = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert joined_messages([parts, asked], "one") == [{"role": "system", "content": "one"}, parts, asked]


def test_an_instruction_of_an_experiment_comes_before_the_clients_and_before_notes():
    said, asked = {"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}
    prompt = msgspec.json.encode([said, asked])
    sent = msgspec.json.decode(joined(prompt, None, ["a note"], "be brief"))
    assert sent == [{"role": "system", "content": "be brief\n\nbe kind\n\na note"}, asked]
    alone = msgspec.json.decode(joined(msgspec.json.encode([asked]), None, (), "be brief"))
    assert alone == [{"role": "system", "content": "be brief"}, asked]
    assert msgspec.json.decode(request_body("m", prompt, None, Sampling(), instruction="be brief"))["messages"][0] == {
        "role": "system", "content": "be brief\n\nbe kind",
    }  # fmt: skip


def test_without_notes_nothing_is_read():
    assert joined(b"[ 1 ]", None) == b"[ 1 ]"


def completed(logprobs: str) -> float | None:
    body = f'{{"choices":[{{"message":{{"content":"x"}},"logprobs":{logprobs}}}]}}'
    return logprob_of(decode_completion(body.encode()))


def test_log_probabilities_are_asked_for_only_where_they_are_wanted_and_their_mean_is_taken():
    assert "logprobs" not in json.loads(sent())
    asked = request_body("upstream", PROMPT, None, Sampling(max_tokens=5), logprobs=True)
    assert json.loads(asked)["logprobs"] is True
    assert completed('{"content":[{"token":"a","logprob":-0.5},{"token":"b","logprob":-1.5}]}') == -1.0
    assert completed('{"content":[{"logprob":0.25}]}') == 0.0
    for none in ("null", "{}", '{"content":null}', '{"content":[]}'):
        assert completed(none) is None


@pytest.mark.parametrize("odd", ['{"content":[{"logprob":-1e999}]}', '{"content":[{}]}', '{"content":3}', "[]", "1"])
def test_log_probabilities_that_are_none_cost_no_answer(odd: str):
    assert completed(odd) is None


def test_what_can_be_learned_from_is_kept_where_it_was_asked_for():
    likely = [{"token": "4", "logprob": -0.1}, {"token": "5", "logprob": -2.5}]
    said = {
        "index": 0,
        "message": {"content": "4", "reasoning_content": "two and two"},
        "finish_reason": "stop",
        "logprobs": {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": likely}]},
    }
    completion = decode_completion(msgspec.json.encode({"choices": [said]}))
    (taught,) = taught_of(completion).choices
    assert (taught.text, taught.reasoning, taught.likely) == ("4", "two and two", [[("4", -0.1), ("5", -2.5)]])
    assert answer_of(completion).choices[0].reasoning is None


@pytest.mark.parametrize("teaches", [True, False])
def test_a_streams_reasoning_is_kept_where_it_was_asked_for(teaches):
    delta = b'{"content":"4","reasoning":"two "}'
    streamed = StreamedAnswer()
    streamed.teaches = teaches
    streamed.add(decode_chunk(b'{"choices":[{"index":0,"delta":%b,"finish_reason":"stop"}]}' % delta))
    assert streamed.answer().choices[0].reasoning == ("two " if teaches else None)
