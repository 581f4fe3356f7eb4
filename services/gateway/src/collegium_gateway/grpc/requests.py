"""From gRPC's messages to what a client asks, through the same structs as HTTP's bodies. Pure.

A message becomes the JSON body that HTTP would have carried, and is read as one. One rule: no check is made here that
the structs or admission make, so that both doors refuse the same things with the same words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest, CodeTest, Options
from collegium_protocol.v1.tasks_pb2 import FeedbackRequest, ProvideInputRequest, SubmitRequest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from collegium_gateway.admission.admission import Asked, asked_by_chat, asked_by_task
from collegium_gateway.admission.requests import decode_chat, decode_task, options_of, parse
from collegium_gateway.errors import ApiError
from collegium_gateway.people.answering import InputRequest, decode_input
from collegium_gateway.tasks import feedback

_CHAT_FIELDS = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "n",
)
_TASK_FIELDS = ("model", "kind", "max_tokens", "temperature", "top_p", "seed", "callback_url")
_JSON_FIELDS = ("tools", "tool_choice", "response_format")
_OPTION_FIELDS = (
    "plan",
    "panel_size",
    "quality_min",
    "budget_usd_max",
    "deadline_seconds",
    "priority",
    "domain",
    "cache",
    "conversation",
    "memory",
    "off_peak",
    "ask",
    "ask_below",
    "input_expires_seconds",
    "on_expiry",
    "answer",
    "judge",
)
_encode = msgspec.json.Encoder().encode


def asked_over_chat(request: ChatRequest, *, streamed: bool) -> Asked:
    """Returns what a chat request asks for; raises ApiError."""
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request.messages), "stream": streamed}
    body |= _present(request, _CHAT_FIELDS) | _json_fields(request)
    if request.stop:
        body["stop"] = list(request.stop)
    if request.HasField("stream_options"):
        body["stream_options"] = {"include_usage": request.stream_options.include_usage}
    if request.HasField("collegium"):
        body["collegium"] = _options(request.collegium)
    return asked_by_chat(parse(decode_chat, _encode(body)), "grpc")


def asked_over_tasks(request: SubmitRequest) -> Asked:
    """Returns what a task request asks for; raises ApiError."""
    if request.HasField("input") == bool(request.messages):
        raise ApiError("invalid_value", "give either a text as input, or messages", param="input")
    body: dict[str, Any] = {"input": request.input if request.HasField("input") else _messages(request.messages)}
    body |= _present(request, _TASK_FIELDS) | _json_fields(request) | _options(request)
    if request.stop:
        body["stop"] = list(request.stop)
    task_request = parse(decode_task, _encode(body))
    return asked_by_task(task_request, options_of(task_request), "grpc")


def rfc3339_of(time: Timestamp, param: str) -> str:
    """Writes a timestamp as RFC 3339; raises ApiError for one outside the years 1 to 9999."""
    try:
        return time.ToJsonString()
    except ValueError:
        raise ApiError("invalid_value", f"{param} is outside the years 1 to 9999", param=param) from None


def _messages(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: ChatMessage, path: str) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role} | _present(message, ("content", "name", "tool_call_id"))
    if message.HasField("content_json"):
        body["content"] = _raw(message.content_json, f"{path}.content_json")
    if message.tool_calls_json:
        path = f"{path}.tool_calls_json"
        body["tool_calls"] = [_raw(text, f"{path}[{index}]") for index, text in enumerate(message.tool_calls_json)]
    return body


def _options(source: Options | SubmitRequest) -> dict[str, Any]:
    body = _present(source, _OPTION_FIELDS)
    if source.gates:
        body["gates"] = list(source.gates)
    if source.labels:
        body["labels"] = list(source.labels)
    if source.tests:
        body["tests"] = [_test(test, f"tests[{index}]") for index, test in enumerate(source.tests)]
    if source.tags:
        body["tags"] = dict(source.tags)
    approval = {"before": list(source.approval_before), "after": list(source.approval_after)}
    if any(approval.values()):
        body["approval"] = approval
    if source.HasField("verified"):
        body["verified"] = MessageToDict(source.verified)
    if source.HasField("not_before"):
        body["not_before"] = rfc3339_of(source.not_before, "not_before")
    return body


def _test(test: CodeTest, path: str) -> dict[str, Any]:
    body = {name: getattr(test, name) for name in ("call", "code") if test.HasField(name)}
    return body | ({"equals": _raw(test.equals_json, f"{path}.equals")} if test.HasField("equals_json") else {})


def _present(source: ChatRequest | ChatMessage | Options | SubmitRequest, names: Iterable[str]) -> dict[str, Any]:
    """Returns the fields that were sent. JSON has no infinities, so they are refused here."""
    found = {name: getattr(source, name) for name in names if source.HasField(name)}  # pyright: ignore[reportArgumentType] - the names are checked at run time
    for name, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ApiError("invalid_value", f"{name} must be a finite number", param=name)
    return found


def _json_fields(source: ChatRequest | SubmitRequest) -> dict[str, Any]:
    found = _present(source, [f"{name}_json" for name in _JSON_FIELDS])
    return {name.removesuffix("_json"): _raw(text, name) for name, text in found.items()}


def _raw(text: str, param: str) -> msgspec.Raw:
    """Returns JSON text as it came; raises ApiError ``malformed_json`` where it is none."""
    try:
        return msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError("malformed_json", f"{param} is not valid JSON: {error}", param=param) from None


def asked_feedback(request: FeedbackRequest) -> feedback.FeedbackRequest:
    """Returns a word about a task as HTTP takes it; raises ApiError for what HTTP refuses."""
    body = {"score": request.score, "comment": request.comment, "source": request.source or "client"}
    return parse(feedback.decode, msgspec.json.encode(body))


def asked_input(request: ProvideInputRequest) -> InputRequest:
    """Returns an answer to what a task waits for as HTTP takes it; raises ApiError for what HTTP refuses."""
    body = {"decision": request.decision or None, "question": request.question, "comment": request.comment}
    text = {"text": request.text} if request.HasField("text") else {}
    return parse(decode_input, msgspec.json.encode(body | text))
