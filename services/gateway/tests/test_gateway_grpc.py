"""The gRPC door through its generated stubs: real broker, real database, real services, a simulated model."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import collegium_gateway
import grpc
import grpc.aio
import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.connection import connect
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.state import KeyRecord, TenantRecord
from collegium_protocol.v1.chat_pb2 import ChatChunk, ChatMessage, ChatRequest, Options, StreamOptions
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_protocol.v1.tasks_pb2 import (
    CancelRequest,
    GetRequest,
    ListRequest,
    SubmitRequest,
    WatchEvent,
    WatchRequest,
)
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_runtime.host import Hosted, start_service, stop_service
from collegium_runtime.runtime_file import Runtime
from collegium_settings import ModelSettings, PriceSettings, Settings
from collegium_settings.settings import GrpcSettings, HttpSettings, TelemetrySettings
from collegium_store import Migrations, migrate
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.granting import GrantingHolds
from collegium_testing.otlp import OtlpReceiver
from collegium_testing.simulator import ToolCall
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

SERVICES = ("router", "worker-pool", "gateway")
MAX_BODY_BYTES = 100_000
KEYS = {
    "acme": ("acmekey00001", "a" * 48, ["chat", "tasks"]),
    "other": ("otherkey0001", "b" * 48, ["chat", "tasks"]),
    "narrow": ("narrowkey001", "c" * 48, ["chat"]),
}
AUTHORIZATION = {
    tenant: ("authorization", f"Bearer sk-clg-{key}-{secret}") for tenant, (key, secret, _) in KEYS.items()
}
AS_ACME = (AUTHORIZATION["acme"],)
TRACE = "0af7651916cd43dd8448eb211c80319c"
MIGRATIONS = Migrations("gateway", Path(collegium_gateway.__file__).parent / "migrations")


class World:
    """A running gateway with what it leans on, and a client's stubs."""

    def __init__(self, simulator: ModelSimulator, gateway: Hosted, channel: grpc.aio.Channel) -> None:
        self.simulator = simulator
        self.gateway = gateway
        self.channel = channel
        self.chat = ChatStub(channel)
        self.tasks = TasksStub(channel)


async def migrate_gateway(url: str) -> None:
    await migrate(url, [MIGRATIONS])


@pytest.fixture(scope="session")
def database_migrations() -> Any:
    return migrate_gateway


@pytest.fixture
def otlp() -> Any:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
async def world(clean_nats_url: str, database_url: str, tmp_path: Path, otlp: OtlpReceiver) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(ModelSimulator())
        settings = Settings(
            data_dir=tmp_path,
            http=HttpSettings(port=0, max_body_bytes=MAX_BODY_BYTES),
            grpc=GrpcSettings(port=0),
            telemetry=TelemetrySettings(otlp_endpoint=otlp.endpoint),
            models=(ModelSettings(name="m", base_url=simulator.base_url, price=PriceSettings()),),
        )
        await declare(clean_nats_url)
        operator = await connect(clean_nats_url, "operator")
        stack.push_async_callback(operator.close)
        stack.callback(GrantingHolds(operator).stop)
        runtime = Runtime(nats=clean_nats_url, database=database_url)
        for service in SERVICES:
            hosted = await start_service(service, settings, runtime)
            stack.push_async_callback(stop_service, hosted)
        gateway: Any = hosted.app
        await eventually(lambda: all(gateway.readiness().values()))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc.port}"))
        yield World(simulator, hosted, channel)


async def declare(nats_url: str) -> None:
    """Streams, consumers, buckets, and tenants with their keys, as an operator and billing would."""
    operator = await connect(nats_url, "operator")
    await topology.apply(operator, await topology.plan(operator, pools=["general"]))
    for tenant, (key, secret, scopes) in KEYS.items():
        digest = hashlib.sha256(secret.encode()).hexdigest()
        record = TenantRecord(id=tenant, tier="pro", keys=[KeyRecord(id=key, secret_sha256=digest, scopes=scopes)])
        await Bucket(operator, s.KV_TENANTS).put(tenant, codec.encode(record))
    await operator.close()


def asking(text: str, **fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "auto", "messages": [ChatMessage(role="user", content=text)]} | fields)


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, ErrorInfo]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), reason_of(raised.value)


def reason_of(error: grpc.aio.AioRpcError) -> ErrorInfo:
    """The ErrorInfo of a refusal, read as any client would read it."""
    carried = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert (carried.code, carried.message) == (error.code().value[0], error.details())
    info = ErrorInfo()
    assert carried.details[0].Unpack(info)
    assert info.domain == "collegium"
    return info


async def test_a_question_is_answered(world: World) -> None:
    call = world.chat.Complete(
        asking("one two three", max_tokens=5, seed=7, collegium=Options(tags={"team": "x"})), metadata=AS_ACME
    )
    answer = await call
    initial = dict(await call.initial_metadata())

    assert [choice.message.role for choice in answer.choices] == ["assistant"]
    assert answer.choices[0].message.content.startswith("one two three")
    assert answer.choices[0].finish_reason == "length"
    assert (answer.model, answer.collegium.model, answer.collegium.plan) == ("m", "m", "single")
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    assert answer.id == f"chatcmpl-{answer.collegium.task_id}"
    assert initial["x-collegium-task-id"] == answer.collegium.task_id
    assert initial["x-request-id"]
    assert world.simulator.counts().models["m"].completed == 1


async def test_tools_go_there_and_back_as_they_are(world: World) -> None:
    world.simulator.script(Rule(Behaviour(tool_calls=(ToolCall("add", '{"a": 1}'),))))
    tools = '[{"type":"function","function":{"name":"add","parameters":{"type":"object"}}}]'
    request = asking("add", tools_json=tools, tool_choice_json='"auto"')
    answer = await world.chat.Complete(request, metadata=AS_ACME)
    chunks = [chunk async for chunk in world.chat.Stream(request, metadata=AS_ACME)]

    (text,) = answer.choices[0].message.tool_calls_json
    function = msgspec.json.decode(text)["function"]
    assert function == {"name": "add", "arguments": '{"a": 1}'}
    (streamed,) = [text for chunk in chunks for choice in chunk.choices for text in choice.delta.tool_calls_json]
    assert msgspec.json.decode(streamed)["function"] == function
    assert msgspec.json.decode(streamed)["index"] == 0


async def test_a_streamed_answer_is_the_whole_answer_in_pieces(world: World) -> None:
    whole = await world.chat.Complete(asking("one two three"), metadata=AS_ACME)
    # Slower than pieces are put together.
    world.simulator.script(Rule(Behaviour(token_delay_ms=40)))
    request = asking("one two three", stream_options=StreamOptions(include_usage=True))
    chunks: list[ChatChunk] = [chunk async for chunk in world.chat.Stream(request, metadata=AS_ACME)]

    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content for delta in deltas) == whole.choices[0].message.content
    assert sum(1 for delta in deltas if delta.content) > 1
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].usage == whole.usage
    assert not chunks[-1].choices
    assert chunks[-1].collegium.task_id == chunks[-2].collegium.task_id != ""


async def test_several_choices_are_streamed_whole(world: World) -> None:
    chunks = [chunk async for chunk in world.chat.Stream(asking("pick", n=2), metadata=AS_ACME)]
    texts = {0: "", 1: ""}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content
    assert all(text.startswith("pick") for text in texts.values())
    assert sorted(choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason) == [0, 1]


async def test_cancelling_a_stream_cancels_its_task_and_the_upstream_call(world: World) -> None:
    world.simulator.script(Rule(Behaviour(token_delay_ms=200)))
    call = world.chat.Stream(asking("a long story"), metadata=AS_ACME)
    task_id = dict(await call.initial_metadata())["x-collegium-task-id"]
    assert await anext(aiter(call))
    call.cancel()

    async def canceled() -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):  # not found until it has settled
            task = await world.tasks.Get(GetRequest(id=task_id), metadata=AS_ACME)
            return task.state == "canceled" and task.stop_reason == "client_disconnected"
        return False

    await eventually(canceled)
    await eventually(lambda: world.simulator.counts().models["m"].aborted == 1)


@pytest.mark.parametrize(
    ("request_fields", "metadata", "status", "code", "param"),
    [
        ({}, (), grpc.StatusCode.UNAUTHENTICATED, "missing_api_key", ""),
        ({}, (("authorization", "Bearer sk-no"),), grpc.StatusCode.UNAUTHENTICATED, "invalid_api_key", ""),
        ({"model": "nobody"}, AS_ACME, grpc.StatusCode.INVALID_ARGUMENT, "unknown_model", "model"),
        ({"model": "x" * 50_000}, AS_ACME, grpc.StatusCode.INVALID_ARGUMENT, "unknown_model", "model"),
        ({"messages": []}, AS_ACME, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "messages"),
        ({"temperature": 3}, AS_ACME, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "temperature"),
        ({"temperature": float("nan")}, AS_ACME, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "temperature"),
        ({"tools_json": "[{]"}, AS_ACME, grpc.StatusCode.INVALID_ARGUMENT, "malformed_json", "tools_json"),
        (
            {"collegium": Options(priority="urgent")},
            AS_ACME,
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid_value",
            "priority",
        ),
        (
            {"collegium": Options(deadline_seconds=-1)},
            AS_ACME,
            grpc.StatusCode.INVALID_ARGUMENT,
            "deadline_in_past",
            "deadline_seconds",
        ),
        (
            {"collegium": Options(gates=["no_such"])},
            AS_ACME,
            grpc.StatusCode.INVALID_ARGUMENT,
            "unknown_gate",
            "gates",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_as_over_http(
    world: World, request_fields: Any, metadata: Any, status: grpc.StatusCode, code: str, param: str
) -> None:
    request = asking("hello", **request_fields)
    found, info = await refusal(world.chat.Complete(request, metadata=metadata))
    assert (found, info.reason, info.metadata["param"]) == (status, code, param)
    found, info = await refusal(world.chat.Stream(request, metadata=metadata).read())
    assert (found, info.reason) == (status, code)
    assert not world.simulator.counts().models


async def test_a_key_without_the_scope_and_a_message_over_the_limit_are_refused(world: World) -> None:
    status, info = await refusal(world.tasks.List(ListRequest(), metadata=(AUTHORIZATION["narrow"],)))
    assert (status, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "insufficient_scope")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.chat.Complete(asking("x" * MAX_BODY_BYTES), metadata=AS_ACME)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_upstream_that_fails_is_told_with_its_task(world: World) -> None:
    world.simulator.script(Rule(Behaviour(status=400, error_code="bad", error_message="no")))
    status, info = await refusal(world.chat.Complete(asking("hello"), metadata=AS_ACME))
    assert (status, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "upstream_rejected")
    task = await world.tasks.Get(GetRequest(id=info.metadata["task_id"]), metadata=AS_ACME)
    assert (task.state, task.error.code) == ("failed", "upstream_rejected")


async def test_a_task_is_submitted_found_and_listed_by_its_tenant_alone(world: World) -> None:
    submitted = await world.tasks.Submit(SubmitRequest(input="later", tags={"team": "x"}), metadata=AS_ACME)
    assert (submitted.state, submitted.model) == ("submitted", "auto")
    found = await world.tasks.Get(GetRequest(id=submitted.id), metadata=AS_ACME)
    assert found.created_at == submitted.created_at

    waited = await world.tasks.Submit(
        SubmitRequest(messages=[ChatMessage(role="user", content="now")], wait_seconds=20, max_tokens=3),
        metadata=AS_ACME,
    )
    assert (waited.state, waited.stop_reason) == ("completed", "length")
    assert waited.output == waited.choices[0].text
    assert (waited.usage.output_tokens, waited.attempts[0].model) == (3, "m")
    assert len(waited.collegium.trace_id) == 32
    found = await world.tasks.Get(GetRequest(id=waited.id), metadata=AS_ACME)
    assert found.collegium.trace_id == waited.collegium.trace_id
    assert waited.settled_at.ToMilliseconds() >= waited.created_at.ToMilliseconds()

    status, info = await refusal(world.tasks.Get(GetRequest(id=waited.id), metadata=(AUTHORIZATION["other"],)))
    assert (status, info.reason) == (grpc.StatusCode.NOT_FOUND, "not_found")
    await eventually(lambda: listed(world, 2))
    first = await world.tasks.List(ListRequest(limit=1, state="completed"), metadata=AS_ACME)
    second = await world.tasks.List(ListRequest(limit=1, state="completed", cursor=first.next_cursor), metadata=AS_ACME)
    assert {first.data[0].id, second.data[0].id} == {submitted.id, waited.id}
    assert not second.next_cursor
    assert not (await world.tasks.List(ListRequest(since={"seconds": 4_000_000_000}), metadata=AS_ACME)).data
    assert not (await world.tasks.List(ListRequest(), metadata=(AUTHORIZATION["other"],))).data


async def listed(world: World, count: int) -> bool:
    page = await world.tasks.List(ListRequest(state="completed"), metadata=AS_ACME)
    return len(page.data) == count


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": "a", "messages": [ChatMessage(role="user", content="b")]}, "input"),
        ({"input": "a", "wait_seconds": -1}, "wait_seconds"),
        ({"input": "a", "kind": "poem"}, "kind"),
        ({"input": "a", "callback_url": "http://127.0.0.1/hook"}, "callback_url"),
    ],
)
async def test_a_wrong_task_is_refused_with_its_field(world: World, fields: Any, param: str) -> None:
    status, info = await refusal(world.tasks.Submit(SubmitRequest(**fields), metadata=AS_ACME))
    assert (status, info.metadata["param"]) == (grpc.StatusCode.INVALID_ARGUMENT, param)


async def test_a_task_is_canceled_once(world: World) -> None:
    world.simulator.script(Rule(Behaviour(hang=True)))
    task = await world.tasks.Submit(SubmitRequest(input="never"), metadata=AS_ACME)
    await eventually(lambda: world.simulator.counts().models)
    canceled = await world.tasks.Cancel(CancelRequest(id=task.id), metadata=AS_ACME)
    assert (canceled.state, canceled.stop_reason) == ("canceled", "canceled")
    status, info = await refusal(world.tasks.Cancel(CancelRequest(id=task.id), metadata=AS_ACME))
    assert (status, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "task_terminal")


async def test_a_task_is_watched_to_its_end_and_the_watch_resumes(world: World) -> None:
    world.simulator.script(Rule(Behaviour(delay_ms=300, token_delay_ms=20)))
    task = await world.tasks.Submit(SubmitRequest(input="one two three"), metadata=AS_ACME)
    events = [event async for event in watching(world, task.id)]

    stored = [event for event in events if event.HasField("sequence")]
    assert [event.sequence for event in stored] == sorted(event.sequence for event in stored)
    assert next(event.state.state for event in stored if event.HasField("state")) in ("submitted", "working")
    done = events[-1].done
    assert (done.id, done.state) == (task.id, "completed")
    tokens = "".join(event.token.text for event in events if event.HasField("token"))
    assert tokens == done.output

    cut = stored[0].sequence
    again = [event async for event in watching(world, task.id, after_sequence=cut)]
    assert [event.sequence for event in again] == [event.sequence for event in stored[1:]]
    after_the_end = [event async for event in watching(world, task.id, after_sequence=stored[-1].sequence)]
    assert [event.WhichOneof("event") for event in after_the_end] == ["done"]


def watching(world: World, task_id: str, **fields: Any) -> AsyncIterator[WatchEvent]:
    return aiter(world.tasks.Watch(WatchRequest(id=task_id, **fields), metadata=AS_ACME))


async def test_a_stopping_gateway_ends_watches_and_says_so(world: World) -> None:
    world.simulator.script(Rule(Behaviour(hang=True)))
    task = await world.tasks.Submit(SubmitRequest(input="never"), metadata=AS_ACME)
    call = world.tasks.Watch(WatchRequest(id=task.id), metadata=AS_ACME)
    assert (await call.read()).state.state in ("submitted", "working")
    ended = asyncio.create_task(refusal(drained(call)))
    gateway: Any = world.gateway.app
    async with asyncio.timeout(30):
        await gateway.grpc.stop(60)
    status, info = await ended
    assert (status, info.reason) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
    assert not gateway.readiness()["grpc"]


async def drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_health_and_reflection_tell_of_the_services(world: World) -> None:
    health = health_pb2_grpc.HealthStub(world.channel)

    async def serving() -> bool:
        replies = [
            await health.Check(health_pb2.HealthCheckRequest(service=name))
            for name in ("", "collegium.v1.Chat", "collegium.v1.Tasks")
        ]
        return all(reply.status == health_pb2.HealthCheckResponse.SERVING for reply in replies)

    await eventually(serving)
    call = ServerReflectionStub(world.channel).ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]))
    names = {service.name for service in (await call.read()).list_services_response.service}
    assert {"collegium.v1.Chat", "collegium.v1.Tasks", "grpc.health.v1.Health"} <= names
    call.cancel()


async def test_a_call_is_the_root_of_its_trace_or_follows_the_callers(world: World, otlp: OtlpReceiver) -> None:
    answer = await world.chat.Complete(asking("hello"), metadata=AS_ACME)
    parent = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
    followed = await world.chat.Complete(asking("hello"), metadata=(*AS_ACME, parent))
    assert followed.collegium.trace_id == TRACE
    found = await eventually(
        lambda: [span for span in otlp.spans if span.name == "collegium.v1.Chat/Complete"][1:] and otlp.spans
    )
    roots = {span.trace_id: span for span in found if span.name == "collegium.v1.Chat/Complete"}
    assert roots.keys() == {TRACE, answer.collegium.trace_id}
    root = roots[answer.collegium.trace_id]
    assert (root.parent_span_id, root.attributes["collegium.task"]) == ("", answer.collegium.task_id)
    assert roots[TRACE].parent_span_id == "b7ad6b7169203331"
    assert any(span.parent_span_id == root.span_id for span in found)
