"""Chat through the whole platform, as the OpenAI SDK sees it."""

from __future__ import annotations

import openai
import pytest
from collegium_testing import eventually
from collegium_testing.simulator import Behaviour, Rule, ToolCall
from openai import AsyncOpenAI

from tests.conftest import Stage

ASK = [{"role": "user", "content": "What is the capital of France?"}]


def client(stage: Stage, key: str | None = None) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{stage.http}/v1", api_key=key or stage.key, max_retries=0)


async def test_a_question_is_answered_with_its_price_and_its_journey(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="Paris.")))
    async with client(stage) as openai_client:
        raw = await openai_client.chat.completions.with_raw_response.create(model="auto", messages=ASK)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Paris."
    assert answer.choices[0].finish_reason == "stop"
    about = answer.model_extra["collegium"]
    assert (about["plan"], about["model"], about["rank"], about["attempts"]) == ("single", "sim", "teacher", 1)
    counted = stage.simulator.counts().models["sim"]
    assert answer.usage.prompt_tokens == counted.prompt_tokens
    assert answer.usage.completion_tokens == counted.completion_tokens
    # 1 and 2 dollars per million tokens.
    picos = counted.prompt_tokens * 10**6 + counted.completion_tokens * 2 * 10**6
    assert about["cost_usd"] == f"{picos / 10**12:.6f}".rstrip("0")
    assert raw.headers["x-collegium-task-id"] == about["task_id"]
    assert raw.headers["x-collegium-model"] == "sim"
    assert about["trace_id"] == raw.headers["traceparent"].split("-")[1]


async def test_a_stream_comes_in_pieces_and_ends_with_its_usage(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="one two three four five", token_delay_ms=30)))
    pieces: list[str] = []
    usage = None
    async with client(stage) as openai_client:
        stream = await openai_client.chat.completions.create(
            model="sim", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            usage = chunk.usage or usage
            pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == "one two three four five"
    assert len(pieces) > 1
    assert usage is not None
    assert usage.completion_tokens == 5


async def test_tools_pass_through_both_ways(stage: Stage):
    stage.simulator.script(Rule(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Paris"}'),))))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    async with client(stage) as openai_client:
        answer = await openai_client.chat.completions.create(model="sim", messages=ASK, tools=tools)
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Paris"}')
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_several_choices_are_answered_in_one_attempt(stage: Stage):
    async with client(stage) as openai_client:
        answer = await openai_client.chat.completions.create(model="sim", messages=ASK, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert stage.simulator.counts().totals.started == 1


async def test_the_models_are_listed(stage: Stage):
    async with client(stage) as openai_client:
        names = [model.id async for model in openai_client.models.list()]
    assert names == ["sim", "all-minilm-l6-v2", "auto"]


async def test_a_panel_of_three_settles_by_majority(stage: Stage):
    stage.simulator.script(
        Rule(Behaviour(answer="Yes."), times=1), Rule(Behaviour(answer="No")), Rule(Behaviour(answer="no!"))
    )
    async with client(stage) as openai_client:
        answer = await openai_client.chat.completions.create(
            model="sim", messages=ASK, extra_body={"collegium": {"plan": "panel", "panel_size": 3}}
        )
    about = answer.model_extra["collegium"]
    assert answer.choices[0].message.content == "No"
    assert (about["plan"], about["attempts"], about["stop_reason"]) == ("panel", 3, "completed")
    assert 0.5 < about["confidence"] < 1
    assert stage.simulator.counts().totals.started == 3


async def test_a_conversation_carries_its_turns(stage: Stage):
    stage.simulator.script(Rule(Behaviour(transcript=True)))
    turn = {"collegium": {"conversation": "walk"}}
    async with client(stage) as openai_client:
        await openai_client.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": "My dog is Bruno."}], extra_body=turn
        )
        await openai_client.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": "Who is my dog?"}], extra_body=turn
        )
    async with client(stage, stage.other_key) as stranger:
        await stranger.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": "Who is my dog?"}], extra_body=turn
        )
    calls = stage.simulator.counts().requests
    assert [message.role for message in calls[1].messages] == ["user", "assistant", "user"]
    assert calls[1].messages[0].content == "My dog is Bruno."
    assert len(calls[2].messages) == 1, "another tenant's conversation of the same name is another conversation"


async def test_a_client_that_goes_away_ends_the_call_and_pays_for_what_was_generated(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="word " * 200, token_delay_ms=20)))
    async with client(stage) as openai_client:
        stream = await openai_client.chat.completions.create(model="sim", messages=ASK, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()

    async def aborted() -> bool:
        return stage.simulator.counts().totals.aborted == 1

    await eventually(aborted)
    task_id = stage.simulator.counts().requests[0].request_id
    async with stage.session() as session:

        async def canceled() -> dict | None:
            async with session.get(f"/v1/tasks/{task_id}") as response:
                task = await response.json()
                return task if task["state"] == "canceled" else None

        task = await eventually(canceled)
    assert task["stop_reason"] == "client_disconnected"
    assert task["partial"] is True
    assert task["usage"]["estimated"] is True
    assert task["usage"]["output_tokens"] > 0
    assert float(task["usage"]["charged_usd"]) > 0


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour(status=500), 502, "upstream_error"),
        (Behaviour(status=429, retry_after_seconds=1), 502, "upstream_rate_limited"),
        (Behaviour(status=401), 502, "upstream_auth"),
        (Behaviour(garbage="html"), 502, "upstream_garbage"),
        (Behaviour(garbage="shape"), 502, "upstream_garbage"),
    ],
)
async def test_an_upstream_that_fails_is_told_with_its_code(stage: Stage, behaviour: Behaviour, status: int, code: str):
    stage.simulator.script(Rule(behaviour))
    async with client(stage) as openai_client:
        with pytest.raises(openai.APIStatusError) as refused:
            await openai_client.chat.completions.create(model="sim", messages=ASK)
    assert (refused.value.status_code, refused.value.code) == (status, code)


async def test_an_upstream_that_hangs_is_ended_by_the_deadline(stage: Stage):
    stage.simulator.script(Rule(Behaviour(hang=True)))
    async with client(stage) as openai_client:
        with pytest.raises(openai.APIStatusError) as refused:
            await openai_client.chat.completions.create(
                model="sim", messages=ASK, extra_body={"collegium": {"deadline_seconds": 1}}
            )
    assert (refused.value.status_code, refused.value.code) == (504, "deadline_exceeded")
    assert refused.value.response.headers["x-collegium-task-id"] in refused.value.message

    async def closed() -> bool:
        return stage.simulator.counts().totals.aborted == 1

    await eventually(closed)


async def test_a_stream_that_is_cut_ends_with_an_error_event(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="one two three four", token_delay_ms=30, cut_stream_after=2)))
    text = ""

    async def read() -> None:
        nonlocal text
        async for chunk in await openai_client.chat.completions.create(model="sim", messages=ASK, stream=True):
            text += chunk.choices[0].delta.content or ""

    async with client(stage) as openai_client:
        with pytest.raises(openai.APIError) as refused:
            await read()
    assert refused.value.code == "upstream_cut"
    assert "one two three four".startswith(text.strip())
