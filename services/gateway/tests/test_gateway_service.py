"""The HTTP door on a real broker and a real database, with router and worker pool behind it."""

import asyncio
import contextlib
import io
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from collegium_contracts import subjects as s
from collegium_contracts.messages import TaskCanceled, TaskFailed
from collegium_testing import Behaviour, Rule, eventually
from collegium_testing.platform import RunningPlatform
from collegium_testing.simulator import ToolCall
from openai import AsyncOpenAI

ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def client_of(platform: RunningPlatform, key: str | None = None) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{platform.http}/v1", api_key=key or platform.key, max_retries=0)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": ASK} | fields


async def settled_on_broker(platform: RunningPlatform) -> list[tuple[str, bytes]]:
    return await platform.read(s.EVENTS, s.TASK_SETTLED_ALL)


async def test_the_openai_client_gets_an_answer(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="Paris.")))
    async with client_of(platform) as client:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=ASK, temperature=0, seed=1)
        answer = raw.parse()
        models = [model.id async for model in client.models.list()]
    counted = platform.sim.counts().totals
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Paris.", "stop")
    assert (answer.model, models) == ("sim", ["sim", "all-minilm-l6-v2", "auto"])
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        counted.prompt_tokens,
        counted.completion_tokens,
    )
    about = answer.model_extra["collegium"]  # type: ignore[index]
    assert raw.headers["x-collegium-task-id"] == about["task_id"]
    assert raw.headers["traceparent"].split("-")[1] == about["trace_id"]
    assert raw.headers["x-request-id"]
    assert {name for name in raw.headers if name.startswith("x-collegium-")} == {
        f"x-collegium-{name}" for name in ("task-id", "model", "rank", "plan", "cache", "cost-usd")
    }


async def test_the_openai_client_streams_with_usage(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="one two three four five", token_delay_ms=20)))
    async with client_of(platform) as client:
        stream = await client.chat.completions.create(
            model="sim", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert "".join(pieces) == "one two three four five"
    assert len(pieces) > 1
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert [choice.delta.role for chunk in chunks for choice in chunk.choices if choice.delta.role] == ["assistant"]
    assert len({chunk.id for chunk in chunks}) == 1
    *before, last = chunks
    assert all(chunk.usage is None for chunk in before)
    assert (last.choices, last.usage.completion_tokens if last.usage else None) == ([], 5)


async def test_a_stream_without_include_usage_has_none(platform: RunningPlatform):
    async with client_of(platform) as client:
        stream = await client.chat.completions.create(model="sim", messages=ASK, stream=True)
        assert all([chunk.usage is None and chunk.choices async for chunk in stream])


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_tools_pass_through_both_ways(platform: RunningPlatform, streamed: bool):
    platform.sim.script(Rule(Behaviour(tool_calls=(ToolCall("weather", '{"city":"Paris"}'), ToolCall("time")))))
    async with client_of(platform) as client:
        asked: Any = {"model": "sim", "messages": ASK, "tools": TOOLS}
        if streamed:
            async with client.chat.completions.stream(**asked) as stream:
                answer = await stream.get_final_completion()
        else:
            answer = await client.chat.completions.create(**asked)
        (choice,) = answer.choices
        calls: Any = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert [(call.function.name, call.function.arguments) for call in calls] == [
            ("weather", '{"city":"Paris"}'),
            ("time", "{}"),
        ]
        platform.sim.script(Rule(Behaviour(transcript=True)))
        messages: Any = [
            *ASK,
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": calls[0].function}]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
        ]
        messages[1]["tool_calls"][0]["function"] = {"name": "weather", "arguments": "{}"}
        second = await client.chat.completions.create(model="sim", messages=messages, tools=TOOLS)
    assert (second.choices[0].message.content or "").endswith("tool: sunny")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_several_choices(platform: RunningPlatform, streamed: bool):
    texts: dict[int, str] = {}
    async with client_of(platform) as client:
        if streamed:
            stream = await client.chat.completions.create(model="sim", messages=ASK, n=3, stream=True)
            async for chunk in stream:
                for choice in chunk.choices:
                    texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
        else:
            answer = await client.chat.completions.create(model="sim", messages=ASK, n=3)
            texts = {choice.index: choice.message.content or "" for choice in answer.choices}
    assert sorted(texts) == [0, 1, 2]
    assert len(set(texts.values())) == 3
    assert platform.sim.counts().totals.started == 1


async def test_errors_are_the_openai_clients_own_classes(platform: RunningPlatform):
    wrong = platform.key[:-1] + ("a" if platform.key[-1] != "a" else "b")
    async with client_of(platform, wrong) as client:
        with pytest.raises(openai.AuthenticationError) as unauthenticated:
            await client.chat.completions.create(model="auto", messages=ASK)
    assert unauthenticated.value.code == "invalid_api_key"
    async with client_of(platform) as client:
        with pytest.raises(openai.BadRequestError, match="'gpt-9'") as unknown:
            await client.chat.completions.create(model="gpt-9", messages=ASK)
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="auto", messages=[{"role": "boss", "content": "x"}])  # type: ignore[list-item]
        with pytest.raises(openai.NotFoundError) as missing:
            await client.get("/nothing", cast_to=object)
        with pytest.raises(openai.UnprocessableEntityError) as too_long:
            await client.chat.completions.create(model="sim", messages=[{"role": "user", "content": "x" * 800_000}])
        with pytest.raises(openai.BadRequestError) as late:
            await client.chat.completions.create(
                model="sim", messages=ASK, extra_body={"collegium": {"deadline_seconds": -1}}
            )
        with pytest.raises(openai.PermissionDeniedError):
            await client.get("/admin/keys", cast_to=object)
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == (
        "unknown_model",
        "model",
        "invalid_request_error",
    )
    assert (bad.value.code, bad.value.param) == ("invalid_value", "messages[0].role")
    assert missing.value.code == "not_found"
    assert too_long.value.code == "context_length_exceeded"
    assert late.value.code == "deadline_in_past"
    assert platform.sim.counts().totals.started == 0
    assert await settled_on_broker(platform) == [], "nothing was half-accepted"


UPSTREAM_FAILURES = (
    (Behaviour(status=500), 502, "upstream_error"),
    (Behaviour(status=401), 502, "upstream_auth"),
    (Behaviour(status=429), 502, "upstream_rate_limited"),
    (Behaviour(garbage="json"), 502, "upstream_garbage"),
    (Behaviour(status=400), 422, "context_length_exceeded"),
)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_an_upstream_that_fails_has_its_code_and_the_task_id(platform: RunningPlatform, streamed: bool):
    """Before the first byte of a stream, an error is an HTTP error."""
    async with platform.session() as http:
        for behaviour, status, code in UPSTREAM_FAILURES:
            platform.sim.script(Rule(behaviour))
            await platform.close_breaker("sim")
            async with http.post("/v1/chat/completions", json=chat(stream=streamed)) as response:
                error = (await response.json())["error"]
                assert response.status == status
                assert error["code"] == ("upstream_cut" if streamed and code == "upstream_garbage" else code)
                assert response.headers["x-collegium-task-id"].startswith("tsk_")


async def test_the_deadline_is_a_504_with_the_task_id(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(hang=True)))
    body = chat(collegium={"deadline_seconds": 0.3})
    async with platform.session() as http, http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 504
        assert (await response.json())["error"]["code"] == "deadline_exceeded"
        task_id = response.headers["x-collegium-task-id"]
        async with http.get(f"/v1/tasks/{task_id}") as found:
            view = await found.json()
    assert (view["state"], view["stop_reason"]) == ("failed", "deadline")
    await eventually(lambda: platform.sim.counts().totals.aborted == 1)


async def events_of(response: aiohttp.ClientResponse) -> list[Any]:
    lines = (await response.text()).split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [msgspec.json.decode(one) for one in data[:-1]]


async def test_a_cut_stream_ends_with_an_error_event(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="one two three four", cut_stream_after=2, token_delay_ms=30)))
    async with platform.session() as http, http.post("/v1/chat/completions", json=chat(stream=True)) as response:
        assert response.status == 200
        *chunks, last = await events_of(response)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks).startswith("one")
    assert last["error"]["code"] == "upstream_cut"


async def test_a_lost_token_is_healed_by_the_settled_text(platform: RunningPlatform):
    """The gateway hears every second chunk only; what the client reads is whole."""
    platform.sim.script(Rule(Behaviour(answer="one two three four five six", token_delay_ms=20)))
    client = platform.hosted("gateway").platform.connection.client
    subscribe, heard = client.subscribe_raw, 0

    def lossy(subject: str, callback: Any) -> int:
        def every_second(*raw: Any) -> None:
            nonlocal heard
            heard += 1
            if heard % 2:
                callback(*raw)

        return subscribe(subject, every_second if subject.startswith("token.") else callback)

    client.subscribe_raw = lossy
    try:
        async with client_of(platform) as openai_client:
            stream = await openai_client.chat.completions.create(model="sim", messages=ASK, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    finally:
        client.subscribe_raw = subscribe
    assert heard > 2
    assert "".join(pieces) == "one two three four five six"


async def test_a_client_that_goes_away_ends_the_call_and_pays_for_what_was_generated(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="word " * 200, token_delay_ms=20, no_usage=True)))
    async with platform.session() as http:
        response = await http.post("/v1/chat/completions", json=chat(stream=True))
        async for line in response.content:
            if b'"content"' in line:
                break
        response.close()
        await eventually(lambda: platform.sim.counts().totals.aborted == 1)
        task_id = response.headers["x-collegium-task-id"]
        settled = await platform.settled(platform.submission("x", id=task_id).task)
        assert isinstance(settled, TaskCanceled)
        assert settled.stop_reason == "client_disconnected"
        assert settled.partial is not None
        text = platform.text(settled.task.tenant, settled.partial)
        assert text.startswith("word")
        assert (settled.usage.estimated, settled.usage.output_tokens) == (True, -(-len(text) // 4))
        async with http.get(f"/v1/tasks/{task_id}") as found:
            view = await found.json()
    assert (view["state"], view["stop_reason"], view["partial"], view["output"]) == (
        "canceled",
        "client_disconnected",
        True,
        text,
    )


async def test_a_client_that_goes_away_before_the_first_token_ends_the_call_too(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(hang=True)))
    async with platform.session() as http:
        call = asyncio.create_task(http.post("/v1/chat/completions", json=chat(stream=True)))
        await eventually(lambda: platform.sim.counts().totals.open == 1)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    await eventually(lambda: platform.sim.counts().totals.aborted == 1)

    async def canceled() -> bool:
        return len(await settled_on_broker(platform)) == 1

    await eventually(canceled)


async def test_a_task_is_found_at_once_and_then_whole(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="Paris.", delay_ms=150)))
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hello", "tags": {"team": "x"}}) as response:
            assert response.status == 202
            accepted = await response.json()
        assert accepted["state"] == "submitted"
        assert response.headers["location"] == f"/v1/tasks/{accepted['id']}"

        async def view() -> dict[str, Any]:
            async with http.get(response.headers["location"]) as found:
                assert found.status == 200
                return await found.json()

        assert (await view())["state"] in ("submitted", "working")

        async def completed() -> dict[str, Any] | None:
            shown = await view()
            return shown if shown["state"] == "completed" else None

        shown = await eventually(completed)
    assert shown is not None
    assert (shown["output"], shown["tags"], shown["attempts"][0]["model"]) == ("Paris.", {"team": "x"}, "sim")


async def test_a_task_that_the_stream_forgot_is_shown_from_the_read_model(platform: RunningPlatform):
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hello"}, headers={"Prefer": "wait=10"}) as response:
            task = await response.json()

        async def projected() -> bool:
            async with http.get("/v1/tasks", params={"state": "completed"}) as listed:
                return (await listed.json())["data"] == [task]

        await eventually(projected)
        await platform.connection.api(f"STREAM.PURGE.{s.EVENTS}")
        async with http.get(f"/v1/tasks/{task['id']}") as found:
            assert await found.json() == task
        async with http.get(f"/v1/tasks/{task['id']}/events") as followed:
            assert await read_events(followed) == [("done", "", task)]


async def test_another_tenants_task_is_not_there(platform: RunningPlatform):
    async with platform.session() as http, platform.session("globex") as other:
        async with http.post("/v1/tasks", json={"input": "hello"}, headers={"Prefer": "wait=10"}) as response:
            assert response.status == 200
            task = await response.json()
        for path in (f"/v1/tasks/{task['id']}", f"/v1/tasks/{task['id']}/events", "/v1/tasks/tsk_x", "/v1/tasks/%00"):
            async with other.get(path) as found:
                assert (found.status, (await found.json())["error"]["code"]) == (404, "not_found")
        async with other.post(f"/v1/tasks/{task['id']}/cancel") as refused:
            assert refused.status == 404
        async with other.get("/v1/tasks") as listed:
            assert (await listed.json())["data"] == []


async def test_the_list_pages_through_everything_once_newest_first(platform: RunningPlatform):
    async with platform.session() as http:
        made = []
        for number in range(7):
            async with http.post("/v1/tasks", json={"input": f"q{number}"}, headers={"Prefer": "wait=10"}) as response:
                made.append((await response.json())["id"])

        async def listed(**query: str) -> dict[str, Any]:
            async with http.get("/v1/tasks", params=query) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        async def all_projected() -> bool:
            return len((await listed(state="completed"))["data"]) == len(made)

        await eventually(all_projected)
        found: list[str] = []
        cursor = ""
        while cursor is not None:
            page = await listed(limit="3", cursor=cursor)
            found += [task["id"] for task in page["data"]]
            cursor = page["next_cursor"]
        assert found == made[::-1]
        assert (await listed(state="failed"))["data"] == []
        assert (await listed(since="2100-01-01T00:00:00Z"))["data"] == []
        for query, param in (({"limit": "0"}, "limit"), ({"cursor": "MS4A"}, "cursor"), ({"state": "x"}, "state")):
            async with http.get("/v1/tasks", params=query) as response:
                assert (response.status, (await response.json())["error"]["param"]) == (400, param)


async def test_a_running_task_is_canceled_once_and_then_terminal(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(hang=True)))
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hello"}) as response:
            task_id = (await response.json())["id"]
        await eventually(lambda: platform.sim.counts().totals.open == 1)
        async with http.post(f"/v1/tasks/{task_id}/cancel") as response:
            assert (response.status, (await response.json())["state"]) == (200, "canceled")
        await eventually(lambda: platform.sim.counts().totals.aborted == 1)
        async with http.post(f"/v1/tasks/{task_id}/cancel") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (409, "task_terminal")


async def read_events(response: aiohttp.ClientResponse) -> list[tuple[str, str, Any]]:
    """Event name, id and data of each event of a finished stream."""
    events = []
    for block in (await response.text()).split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields.get("id", ""), msgspec.json.decode(fields["data"])))
    return events


async def test_events_resume_after_the_last_one_on_any_replica(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="one two three", token_delay_ms=40)))
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hello"}) as response:
            task_id = (await response.json())["id"]
        async with http.get(f"/v1/tasks/{task_id}/events") as response:
            events = await read_events(response)
    names = [name for name, _, _ in events]
    assert names[0] == "state"
    assert names[-1] == "done"
    assert "token" in names
    assert events[-1][2]["output"] == "one two three"
    stored = [(name, sequence) for name, sequence, _ in events if sequence]
    await platform.start("gateway")
    headers = {"Last-Event-ID": stored[0][1]}
    async with platform.session() as http, http.get(f"/v1/tasks/{task_id}/events", headers=headers) as response:
        again = [(name, sequence) for name, sequence, _ in await read_events(response) if sequence]
    assert again == stored[1:]


@pytest.mark.parametrize("payload", [b"\xff\xfenoise", b"{}"], ids=["noise", "json"])
async def test_undecodable_events_are_buried_verbatim_and_the_read_model_goes_on(
    platform: RunningPlatform, payload: bytes
):
    subject = "task.changed.acme.tsk_noise"
    await platform.send(subject, payload, message_id="noise", tenant="acme")
    letters = await eventually(platform.dead_letters)
    assert [(letter.payload, letter.subject, letter.service) for letter in letters] == [(payload, subject, "gateway")]
    async with platform.session() as http:
        async with http.post("/v1/tasks", json={"input": "hello"}, headers={"Prefer": "wait=10"}) as response:
            task_id = (await response.json())["id"]

        async def projected() -> bool:
            async with http.get("/v1/tasks") as listed:
                return [task["id"] for task in (await listed.json())["data"]] == [task_id]

        await eventually(projected)


async def test_noise_on_core_subjects_disturbs_nobody(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="one two three", token_delay_ms=30)))
    replica = platform.app("gateway").tasks._waiting.replica

    async def make_noise() -> None:
        waiting = platform.app("gateway").tasks._waiting._waiters
        await eventually(lambda: waiting)
        task_id = next(iter(waiting))
        for noise in (b"", b"\xff", b"{}"):
            platform.connection.publish(s.token("acme", task_id), noise)
            platform.connection.publish(s.done(replica, task_id), noise)
            platform.connection.publish(s.done(replica, "tsk_unknown"), noise)

    async with client_of(platform) as client, asyncio.TaskGroup() as group:
        group.create_task(make_noise())
        stream = await client.chat.completions.create(model="sim", messages=ASK, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "one two three"


async def test_a_notification_that_is_lost_is_made_up_for_by_the_stored_message(platform: RunningPlatform):
    waiting = platform.app("gateway").tasks._waiting
    platform.hosted("gateway").platform.connection.client.unsubscribe_raw(waiting._sid)
    await platform.hosted("gateway").platform.connection.flush()
    async with client_of(platform) as client:
        answer = await client.chat.completions.create(model="sim", messages=ASK)
    assert answer.choices[0].message.content


# One platform hears them all: each answer must be whole by itself.
REFUSALS = (
    ("GET", "/nothing", 404, "not_found"),
    ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ("DELETE", "/v1/tasks", 405, "method_not_allowed"),
    ("POST", "/v1/models", 405, "method_not_allowed"),
    ("GET", "/v1/models", 401, "missing_api_key"),
    ("POST", "/v1/tasks", 401, "missing_api_key"),
    ("POST", "/v1/chat/completions", 401, "missing_api_key"),
    ("GET", "/v1/usage", 401, "missing_api_key"),
    ("GET", "/v1/admin/keys", 401, "missing_api_key"),
)


async def test_every_refusal_has_the_contracts_body_and_a_request_id(platform: RunningPlatform):
    async with aiohttp.ClientSession(platform.http) as http:
        for method, path, status, code in REFUSALS:
            async with http.request(method, path, headers={"x-request-id": "mine"}, data=b"{") as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"]) == (status, code), path
                assert response.headers["x-request-id"] == "mine", path
                assert set(error) == {"message", "type", "param", "code"}


async def test_a_service_that_is_away_is_a_503_that_says_when_to_come_back(platform: RunningPlatform):
    """Billing does not run here."""
    async with platform.session() as http, http.get("/v1/usage") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "billing_unavailable")
        assert int(response.headers["retry-after"]) >= 1


async def test_a_body_over_the_bound_is_a_413(platform: RunningPlatform):
    huge = b'{"model":"sim","messages":"' + b"x" * platform.settings.http.max_body_bytes + b'"}'
    async with platform.session() as http:
        for path in ("/v1/chat/completions", "/v1/tasks"):
            async with http.post(path, data=io.BytesIO(huge)) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")


async def test_a_large_prompt_and_a_large_answer_travel_by_claim(platform: RunningPlatform):
    """Over 256 KB, payloads go to the object store on every hop."""
    platform.sim.script(Rule(Behaviour(answer="y" * 400_000, ignore_max_tokens=True)))
    body = chat(messages=[{"role": "user", "content": "x" * 400_000}])
    async with platform.session() as http, http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    assert answer["choices"][0]["message"]["content"] == "y" * 400_000
    (call,) = platform.sim.counts().requests
    assert call.messages[0].text() == "x" * 400_000


async def test_without_a_worker_the_wait_ends_with_the_deadline_and_the_task_settles_later(platform: RunningPlatform):
    await platform.stop(platform.hosted("worker-pool"))
    async with platform.session() as http:
        body = chat(collegium={"deadline_seconds": 0.1})
        async with http.post("/v1/chat/completions", json=body) as response:
            assert response.status == 504
            task_id = response.headers["x-collegium-task-id"]
    await platform.start("worker-pool")
    settled = await platform.settled(platform.submission("x", id=task_id).task)
    assert isinstance(settled, TaskFailed)
    assert (settled.stop_reason, platform.sim.counts().totals.started) == ("deadline", 0)


async def test_draining_answers_what_waits_and_closes_the_door(platform: RunningPlatform):
    platform.sim.script(Rule(Behaviour(answer="Paris.", delay_ms=300)))
    async with platform.session() as http:
        call = asyncio.create_task(http.post("/v1/chat/completions", json=chat()))
        await eventually(lambda: platform.sim.counts().totals.open == 1)
        gateway = platform.hosted("gateway")
        await platform.stop(gateway)
        response = await call
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Paris."
        response.release()
