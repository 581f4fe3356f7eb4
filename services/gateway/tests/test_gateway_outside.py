"""What clients may hold the HTTP door to beside the answers: trace ids, headers, named parameters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from collegium_contracts import subjects as s
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
ASK: dict[str, Any] = {"model": "sim", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


async def chunks_of(platform: RunningPlatform, body: dict[str, Any], **headers: str) -> tuple[list[Any], Any]:
    """Returns a stream's chunks and its headers."""
    sent = body | {"stream": True}
    async with platform.session() as http, http.post("/v1/chat/completions", json=sent, headers=headers) as response:
        assert response.status == 200, await response.text()
        lines = (await response.text()).split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]], response.headers


async def waited(platform: RunningPlatform, **headers: str) -> dict[str, Any]:
    """Returns a task that its client waited for."""
    sent = {"Prefer": "wait=10", **headers}
    async with platform.session() as http, http.post("/v1/tasks", json={"input": "hi"}, headers=sent) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def shown(platform: RunningPlatform, path: str) -> Any:
    async with platform.session() as http, http.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_a_task_names_the_trace_of_its_journey_wherever_it_is_shown(platform: RunningPlatform):
    task = await waited(platform, **TRACED)
    path = f"/v1/tasks/{task['id']}"
    assert task["collegium"]["trace_id"] == TRACE
    assert await shown(platform, path) == task

    async def listed() -> list[Any]:
        return (await shown(platform, "/v1/tasks?state=completed"))["data"]

    assert await eventually(listed) == [task]
    await platform.connection.api(f"STREAM.PURGE.{s.EVENTS}")
    assert await shown(platform, path) == task, "from the read model"


async def test_the_events_of_a_task_end_with_its_trace(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(delay_ms=100)))
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hi"}, headers=TRACED) as response:
            task_id = (await response.json())["id"]
        async with http.get(f"/v1/tasks/{task_id}/events") as response:
            blocks = (await response.text()).strip().split("\n\n")
    assert f'"trace_id":"{TRACE}"' in blocks[-1]


async def test_a_stream_names_its_trace_where_it_finishes(platform: RunningPlatform):
    chunks, _ = await chunks_of(platform, ASK | {"stream_options": {"include_usage": True}}, **TRACED)
    told = [chunk["collegium"]["trace_id"] for chunk in chunks if "collegium" in chunk]
    assert told == [TRACE, TRACE]


RESULT = {f"x-collegium-{name}" for name in ("task-id", "model", "rank", "plan", "cache", "cost-usd")}


def of_collegium(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-collegium-")}


async def test_a_stream_says_who_answers_before_it_is_known_what_that_costs(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="one two three four", token_delay_ms=30)))
    chunks, headers = await chunks_of(platform, ASK)
    about = next(chunk["collegium"] for chunk in chunks if "collegium" in chunk)
    told = of_collegium(headers)
    assert told == {
        "x-collegium-task-id": about["task_id"],
        "x-collegium-model": "sim",
        "x-collegium-rank": about["rank"],
        "x-collegium-plan": "single",
        "x-collegium-cache": "off",
    }


async def test_a_stream_of_several_choices_says_who_answered_in_its_last_chunk(platform: RunningPlatform):
    chunks, _ = await chunks_of(platform, ASK | {"n": 3})
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if "collegium" in chunk] == ["stop"]
    assert chunks[-1]["choices"][0]["index"] == 2
    assert "collegium" in chunks[-1]


async def test_a_task_that_settled_says_who_answered_and_what_it_cost(platform: RunningPlatform):
    async with platform.session() as http:
        sent = {"input": "hi"}
        async with http.post("/v1/tasks", json=sent, headers={"Prefer": "wait=10"}) as response:
            task = await response.json()
            told = of_collegium(response.headers)
        assert set(told) == RESULT
        assert told["x-collegium-cost-usd"] == task["collegium"]["cost_usd"]
        async with http.get(f"/v1/tasks/{task['id']}") as response:
            assert of_collegium(response.headers) == told
        platform.sim.script(Rule(Behaviour(hang=True)))
        async with http.post("/v1/tasks", json=sent) as response:
            open_id = (await response.json())["id"]
            assert response.headers["x-collegium-task-id"] == open_id
            assert not RESULT - {"x-collegium-task-id"} & set(of_collegium(response.headers))
        async with http.post(f"/v1/tasks/{open_id}/cancel") as response:
            assert set(of_collegium(response.headers)) == RESULT


async def test_every_response_names_a_trace(platform: RunningPlatform):
    async with platform.session() as http:
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/v1/tasks"),
            ("GET", "/v1/tasks/tsk_none"),
            ("POST", "/v1/nothing"),
            ("PUT", "/v1/models"),
        ):
            async with http.request(method, path, headers=TRACED) as response:
                assert response.headers["traceparent"] == TRACED["traceparent"], path
            async with http.request(method, path) as response:
                assert TRACE not in response.headers["traceparent"]


async def test_a_refusal_says_what_is_allowed_and_how_to_let_oneself_in(platform: RunningPlatform):
    async with platform.session() as http:
        for path, allowed in (
            ("/v1/tasks", "GET, HEAD, POST"),
            ("/v1/models", "GET, HEAD"),
            ("/v1/chat/completions", "POST"),
        ):
            async with http.delete(path) as response:
                assert (response.status, response.headers["allow"]) == (405, allowed)
        for path in ("/v1/models", "/v1/tasks"):
            async with http.get(path, headers={"authorization": "Bearer nobody"}) as response:
                assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
        async with http.post("/v1/chat/completions", json=ASK, headers={"authorization": ""}) as response:
            assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_follower_that_comes_late_gets_tokens_that_join_to_the_output(platform: RunningPlatform):
    said = " ".join(f"word{number}" for number in range(60))
    platform.sim.script(Rule(Behaviour(answer=said, token_delay_ms=50)))

    async def followed(task_id: str) -> list[tuple[str, Any]]:
        async with platform.session() as http, http.get(f"/v1/tasks/{task_id}/events") as response:
            blocks = [block.splitlines() for block in (await response.text()).strip().split("\n\n")]
        events = [[line for line in block if not line.startswith((":", "id: "))] for block in blocks]
        return [(one[0].removeprefix("event: "), json.loads(one[1].removeprefix("data: "))) for one in events if one]

    async with platform.session() as http, http.post("/v1/tasks", json={"input": "hi"}) as response:
        task_id = (await response.json())["id"]

    early = asyncio.create_task(followed(task_id))
    await eventually(lambda: platform.sim.counts().totals.started == 1)

    async def spoken() -> int:
        return len(await platform.read(s.EVENTS, s.attempts_of("acme", task_id)))

    # The first is AttemptStarted, the second the first checkpoint.
    await eventually(lambda: at_least(spoken, 2))
    late = asyncio.create_task(followed(task_id))
    for events in (await early, await late, await followed(task_id)):
        assert "".join(data["text"] for name, data in events if name == "token") == said
        assert events[-1][1]["output"] == said


async def at_least(count: Callable[[], Awaitable[int]], least: int) -> bool:
    return await count() >= least


async def test_more_tokens_than_a_model_may_write_are_its_most(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="word " * 5_000)))
    body = ASK | {"max_tokens": 1_000_000}
    async with platform.session() as http:
        async with http.get("/v1/models") as response:
            most = (await response.json())["data"][0]["collegium"]["max_output_tokens"]
        async with http.post("/v1/chat/completions", json=body) as response:
            assert response.status == 200
            answer = await response.json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == most < 5_000
