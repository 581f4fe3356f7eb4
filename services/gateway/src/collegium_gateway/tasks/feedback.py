"""Feedback: what became of an answer, told by the client that asked or by a program that used it.

One rule: only a task that has settled is judged, and what was told is stored before it is confirmed.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final, Literal

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.feedback import Feedback
from collegium_contracts.messages import SettledMessage
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.views import rfc3339

COMMENT_CHARS_MAX: Final = 4_000
MAX_BODY_BYTES: Final = 32 * 1024


class FeedbackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``POST /v1/tasks/{id}/feedback`` takes: a score from 0 (wrong) to 1 (right), who tells it, and why."""

    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    source: Literal["client", "outcome"] = "client"
    comment: Annotated[str, msgspec.Meta(max_length=COMMENT_CHARS_MAX)] = ""


decode = msgspec.json.Decoder(FeedbackRequest)


def check_principal(principal: Principal) -> None:
    """Raises ApiError unless a key may judge: whoever may ask may say what came of it."""
    if "chat" not in principal.scopes:
        principal.need("tasks")


async def give(
    platform: Platform, principal: Principal, settled: SettledMessage, asked: FeedbackRequest, traceparent: str
) -> dict[str, Any]:
    """Stores a word about a settled task and returns it as clients see it; raises ApiError where it is not stored."""
    now_ms = platform.now_ms()
    task = settled.task
    told = Feedback(
        id=ids.feedback_id(now_ms, os.urandom(10)),
        task=task,
        source=asked.source,
        score=asked.score,
        at_ms=now_ms,
        plan=settled.plan,
        model=settled.model,
        rank=settled.rank,
        by=principal.key_id,
        comment=platform.keyring.seal(task.tenant, asked.comment.encode()) if asked.comment else None,
    )
    try:
        await platform.publisher.publish(
            s.feedback(task.tenant, task.id),
            codec.encode(told),
            message_id=told.id,
            headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
        )
    except BusError as error:
        raise from_bus(error, f"the feedback on task {task.id}") from error
    return {
        "id": told.id,
        "task_id": task.id,
        "score": told.score,
        "source": told.source,
        "model": told.model,
        "rank": told.rank,
        "created_at": rfc3339(now_ms),
    }


def not_settled(task_id: str, state: str) -> ApiError:
    """Returns the refusal of a word about a task that has not ended."""
    return ApiError("task_not_settled", f"task {task_id} is {state}; give feedback once it has ended", param="id")
