"""HTTP and gRPC ask for the same and say the same: no field of one is missing in the other."""

from __future__ import annotations

from typing import Any

import msgspec
from collegium_contracts.messages import TaskCompleted, TaskRef
from collegium_contracts.money import Usage
from collegium_contracts.parts import MemoryUse
from collegium_gateway.admission.admission import asked_by_chat, asked_by_task
from collegium_gateway.admission.requests import Options, decode_chat, decode_task, options_of
from collegium_gateway.grpc.replies import result
from collegium_gateway.grpc.requests import asked_over_chat, asked_over_tasks
from collegium_gateway.tasks.views import TaskView, collegium_of
from collegium_protocol.v1 import chat_pb2, tasks_pb2
from google.protobuf.json_format import MessageToDict

PANEL: dict[str, Any] = {
    "plan": "panel", "panel_size": 5, "answer": "label", "labels": ["refund", "reject"], "judge": "pairwise",
}  # fmt: skip


def test_whatever_http_takes_grpc_takes():
    options = set(Options.__struct_fields__) - {"approval"} | {"approval_before", "approval_after"}
    assert set(chat_pb2.Options.DESCRIPTOR.fields_by_name) == options
    assert options <= set(tasks_pb2.SubmitRequest.DESCRIPTOR.fields_by_name)


def test_a_panel_is_asked_for_alike():
    chat = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    over = asked_over_chat(chat_pb2.ChatRequest(**chat, collegium=chat_pb2.Options(**PANEL)), streamed=False)
    assert (
        over.options
        == asked_by_chat(decode_chat.decode(msgspec.json.encode(chat | {"collegium": PANEL})), "chat").options
    )
    task = decode_task.decode(msgspec.json.encode({"input": "x"} | PANEL))
    over = asked_over_tasks(tasks_pb2.SubmitRequest(input="x", **PANEL))
    assert over.options == asked_by_task(task, options_of(task), "task").options


def test_whatever_http_says_of_an_answer_grpc_says():
    task = TaskRef(
        id="tsk_1", tenant="acme", created_at_ms=1, deadline_ms=2, model="auto",
        memory="notes", recalled=MemoryUse(state="recalled", ids=["mem_1"]),
    )  # fmt: skip
    settled = TaskCompleted(
        task=task, plan="panel", usage=Usage(), attempts=[], settled_at_ms=2, model="m", rank="student",
        stop_reason="no_majority", confidence=0.5, output=None,
    )  # fmt: skip
    said = MessageToDict(result(settled, "t" * 32), preserving_proto_field_name=True)
    told = collegium_of(settled, "t" * 32)
    assert (said["confidence"], said["stop_reason"], said["memory"]) == (0.5, "no_majority", told["memory"])
    assert set(told) <= set(chat_pb2.Result.DESCRIPTOR.fields_by_name)
    assert set(TaskView.__struct_fields__) <= set(tasks_pb2.Task.DESCRIPTOR.fields_by_name)
