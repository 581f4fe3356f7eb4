"""Idempotency keys as gRPC metadata: the same task, answer and reply as over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_protocol.v1.tasks_pb2 import CancelRequest, FeedbackRequest, SubmitRequest
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing import Behaviour, Rule
from collegium_testing.platform import RunningPlatform
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

ASK = ChatRequest(model="sim", messages=[ChatMessage(role="user", content="hello")])


class Caller:
    """Stubs of a running gateway, and a tenant's metadata with a key."""

    def __init__(self, platform: RunningPlatform, channel: grpc.aio.Channel) -> None:
        self.platform = platform
        self.chat = ChatStub(channel)
        self.tasks = TasksStub(channel)

    def metadata(self, key: str) -> Any:
        return (("authorization", f"Bearer {self.platform.key}"), ("idempotency-key", key))

    def calls(self) -> int:
        return self.platform.sim.counts().totals.started


@pytest.fixture
async def caller(platform: RunningPlatform) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.app('gateway').grpc.port}") as channel:
        yield Caller(platform, channel)


async def replayed(call: Any) -> bool:
    return dict(await call.initial_metadata()).get("idempotent-replayed") == "true"


async def reason(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    details = dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = ErrorInfo()
    Status.FromString(details).details[0].Unpack(info)
    return f"{refused.value.code().name} {info.reason}"


async def test_complete_again_is_the_same_answer(caller: Caller):
    calls = [caller.chat.Complete(ASK, metadata=caller.metadata("k")) for _ in range(2)]
    first, second = [await call for call in calls]
    assert first == second
    assert sorted([await replayed(call) for call in calls]) == [False, True]
    assert caller.calls() == 1


async def test_stream_again_is_the_same_text(caller: Caller):
    caller.platform.sim.script(Rule(Behaviour(answer="one two three", token_delay_ms=10)))
    texts = []
    for again in (False, True):
        stream = caller.chat.Stream(ASK, metadata=caller.metadata("k"))
        assert await replayed(stream) is again
        texts.append("".join([choice.delta.content async for chunk in stream for choice in chunk.choices]))
    assert texts == ["one two three", "one two three"]
    assert caller.calls() == 1


async def test_submit_again_is_the_same_task(caller: Caller):
    request = SubmitRequest(input="hello")
    first = await caller.tasks.Submit(request, metadata=caller.metadata("k"))
    second = await caller.tasks.Submit(request, metadata=caller.metadata("k"))
    assert (second, second.state) == (first, first.state)
    # Waiting is part of the request over gRPC, where it is a field of the message.
    other = caller.tasks.Submit(SubmitRequest(input="hello", wait_seconds=5), metadata=caller.metadata("k"))
    assert await reason(other) == "ALREADY_EXISTS idempotency_conflict"


async def test_cancel_again_is_the_same_reply(caller: Caller):
    caller.platform.sim.script(Rule(Behaviour(hang=True)))
    task = await caller.tasks.Submit(SubmitRequest(input="hello"), metadata=caller.metadata("s"))
    request = CancelRequest(id=task.id)
    first = await caller.tasks.Cancel(request, metadata=caller.metadata("k"))
    again = caller.tasks.Cancel(request, metadata=caller.metadata("k"))
    assert await again == first
    assert await replayed(again)
    for _ in range(2):
        late = caller.tasks.Cancel(request, metadata=caller.metadata("late"))
        assert await reason(late) == "FAILED_PRECONDITION task_terminal"


async def test_feedback_again_is_the_same_word(caller: Caller):
    task = await caller.tasks.Submit(SubmitRequest(input="hello", wait_seconds=20), metadata=caller.metadata("s"))
    request = FeedbackRequest(id=task.id, score=0.5, comment="so so")
    first = await caller.tasks.Feedback(request, metadata=caller.metadata("f"))
    again = caller.tasks.Feedback(request, metadata=caller.metadata("f"))
    assert await again == first
    assert await replayed(again)
    assert (first.task_id, first.score, first.source) == (task.id, 0.5, "client")
    refused = caller.tasks.Feedback(FeedbackRequest(id=task.id, score=1.5), metadata=caller.metadata("g"))
    assert await reason(refused) == "INVALID_ARGUMENT invalid_value"
    caller.platform.sim.script(Rule(Behaviour(hang=True)))
    unsettled = await caller.tasks.Submit(SubmitRequest(input="hello"), metadata=caller.metadata("l"))
    refused = caller.tasks.Feedback(FeedbackRequest(id=unsettled.id, score=1), metadata=caller.metadata("h"))
    assert await reason(refused) == "FAILED_PRECONDITION task_not_settled"
    # A call that hangs would hold up the end of the gateway.
    await caller.tasks.Cancel(CancelRequest(id=unsettled.id), metadata=caller.metadata("c"))


async def test_a_key_that_is_none_is_refused(caller: Caller):
    refused = caller.chat.Complete(ASK, metadata=caller.metadata("x" * 256))
    assert await reason(refused) == "INVALID_ARGUMENT invalid_value"
    assert caller.calls() == 0
