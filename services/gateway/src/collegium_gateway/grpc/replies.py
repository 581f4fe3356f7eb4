"""What gRPC clients see: the views of HTTP as messages. Pure.

One rule: a message is made from the same view as the JSON body, field by field of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from collegium_contracts.content import Answer
from collegium_contracts.messages import SettledMessage, TaskCompleted
from collegium_protocol.v1.chat_pb2 import ChatChoice, ChatMessage, ChatResponse, ChatUsage, Result
from collegium_protocol.v1.tasks_pb2 import (
    Attempt,
    Checkpoint,
    Choice,
    FeedbackResponse,
    ListResponse,
    Question,
    StateChange,
    Task,
    TaskError,
    TaskUsage,
    Token,
    WatchEvent,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from collegium_gateway.tasks.events import TaskEvent
from collegium_gateway.tasks.views import TaskView, collegium_of, completion, openai_usage

_encode = msgspec.json.Encoder().encode


def chat_response(settled: TaskCompleted, answer: Answer, trace_id: str) -> ChatResponse:
    """Returns the answer to a chat request."""
    body = completion(settled, answer, trace_id)
    return ChatResponse(
        id=body["id"],
        created=body["created"],
        model=body["model"],
        choices=[_chat_choice(choice) for choice in body["choices"]],
        usage=ChatUsage(**body["usage"]),
        collegium=Result(**body["collegium"]),
    )


def chat_usage(settled: SettledMessage) -> ChatUsage:
    """Returns the usage of a streamed answer."""
    return ChatUsage(**openai_usage(settled.usage))


def result(settled: SettledMessage, trace_id: str) -> Result:
    """Returns the response extension ``collegium``."""
    return Result(**collegium_of(settled, trace_id))


def task(view: TaskView) -> Task:
    """Returns a task."""
    return Task(
        id=view.id,
        state=view.state,
        created_at=_timestamp(view.created_at),
        settled_at=_timestamp(view.settled_at) if view.settled_at is not None else None,
        output=view.output,
        choices=[_choice(choice) for choice in view.choices or ()],
        usage=TaskUsage(**view.usage) if view.usage is not None else None,
        collegium=Result(**view.collegium) if view.collegium is not None else None,
        attempts=[Attempt(**attempt) for attempt in view.attempts],
        stop_reason=view.stop_reason,
        partial=view.partial,
        error=TaskError(**view.error) if view.error is not None else None,
        queue_position=view.queue_position,
        queue_age_ms=view.queue_age_ms,
        estimated_wait_seconds=view.estimated_wait_seconds,
        model=view.model,
        priority=view.priority,
        tags=view.tags,
        not_before=_timestamp(view.not_before) if view.not_before is not None else None,
        input_required=ParseDict(view.input_required, Struct()) if view.input_required is not None else None,
    )


def task_list(views: list[TaskView], next_cursor: str | None) -> ListResponse:
    """Returns a page of tasks."""
    return ListResponse(data=[task(view) for view in views], next_cursor=next_cursor)


def watch_event(event: TaskEvent) -> WatchEvent:
    """Returns one event of a watched task."""
    match event.event:
        case "state":
            questions = [Question(**one) for one in event.data.get("questions", ())]
            told: dict[str, Any] = {name: value for name, value in event.data.items() if name != "questions"}
            state = StateChange(**told, questions=questions)
            return WatchEvent(sequence=event.sequence, state=state)
        case "token":
            return WatchEvent(sequence=event.sequence, token=Token(**event.data))
        case "checkpoint":
            return WatchEvent(sequence=event.sequence, checkpoint=Checkpoint(**event.data))
        case _:
            return WatchEvent(sequence=event.sequence, done=task(event.data))


def json_texts(calls: list[Any] | None) -> list[str]:
    """Writes tool calls as one JSON text each."""
    return [_encode(call).decode() for call in calls or ()]


def _chat_choice(choice: dict[str, Any]) -> ChatChoice:
    message = choice["message"]
    return ChatChoice(
        index=choice["index"],
        message=ChatMessage(
            role=message["role"], content=message["content"], tool_calls_json=json_texts(message.get("tool_calls"))
        ),
        finish_reason=choice["finish_reason"],
    )


def _choice(choice: dict[str, Any]) -> Choice:
    return Choice(
        text=choice.get("text"),
        finish_reason=choice.get("finish_reason", "stop"),
        tool_calls_json=json_texts(choice.get("tool_calls")),
    )


def _timestamp(rfc3339: str) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromJsonString(rfc3339)
    return timestamp


def feedback(told: Mapping[str, Any]) -> FeedbackResponse:
    """Returns a word about a task as it was stored."""
    created = Timestamp()
    created.FromJsonString(told["created_at"])
    return FeedbackResponse(
        id=told["id"], task_id=told["task_id"], score=told["score"], source=told["source"], created_at=created
    )
