"""What clients see: settled messages and rows as JSON bodies and headers. Pure, apart from opening envelopes.

One rule: money is a decimal string of dollars, a time is RFC 3339 in UTC, and nothing is shown that was not stored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from collegium_bus.direct import Stored
from collegium_contracts import codec
from collegium_contracts.content import Answer, as_shown, decode_answer
from collegium_contracts.envelope import Envelope, Keyring
from collegium_contracts.errors import kind_of
from collegium_contracts.memory_paths import OFF
from collegium_contracts.messages import AttemptUsage, SettledMessage, TaskCompleted, TaskFailed, TaskRef
from collegium_contracts.modelstate import EndpointHealth
from collegium_contracts.money import Usage, picos_to_usd
from collegium_contracts.state import Breaker
from collegium_contracts.subjects import TRACEPARENT
from collegium_telemetry.hop import trace_of

from collegium_gateway.readmodel.rows import State, TaskRow, state_of

_decode_reference = msgspec.msgpack.Decoder(TaskRef).decode


def rfc3339(unix_ms: int) -> str:
    """Writes Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def collegium_of(settled: SettledMessage, trace_id: str) -> dict[str, Any]:
    """Returns the response extension ``collegium`` of a settled task."""
    reused = settled.task.reused
    why = {"plan_reason": settled.task.plan_reason} if settled.task.plan_reason else {}
    stale = {"stale": True, "age_seconds": reused.age_seconds} if reused is not None and reused.is_stale else {}
    return {
        "task_id": settled.task.id,
        "plan": settled.plan,
        "model": settled.model,
        "rank": settled.rank,
        "attempts": len(settled.attempts),
        "confidence": settled.confidence,
        "cost_usd": picos_to_usd(settled.usage.cost_usd_picos),
        "cache": settled.task.cache,
        "stop_reason": settled.stop_reason,
        "trace_id": trace_id,
        **why,
        **stale,
        **memory_of(settled.task),
        **_tests_of(settled),
    }


def _tests_of(settled: SettledMessage) -> dict[str, Any]:
    """Returns what tests said of the answer; nothing where none came with the task, or nothing was answered."""
    evidence = settled.evidence
    if evidence is None or not evidence.tests:
        return {}
    told = next((one for one in evidence.said if one.is_given), None)
    if told is None or told.tested is None:
        return {}
    return {"tests": {"state": told.tested, "passed": told.passed, "of": evidence.tests}}


def memory_of(task: TaskRef) -> dict[str, Any]:
    """Returns what memory had to do with a task; nothing where it did not ask for any."""
    if not task.memory:
        return {}
    use = task.recalled
    state = use.state if use is not None else "off" if task.memory == OFF else "none"
    return {"memory": {"path": task.memory, "state": state, "recalled": use.ids if use is not None else []}}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Returns a usage as tasks show it."""
    return {
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
        "cost_usd": picos_to_usd(usage.cost_usd_picos),
        "charged_usd": picos_to_usd(usage.charge_usd_picos),
    }


def openai_usage(usage: Usage) -> dict[str, Any]:
    """Returns a usage as OpenAI's chat completions show it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def answer_of(keyring: Keyring, tenant: str, envelope: Envelope | None) -> Answer | None:
    """Opens a sealed answer; none where there is none."""
    return None if envelope is None else decode_answer(keyring.open(tenant, envelope))


def completion(settled: TaskCompleted, answer: Answer, trace_id: str) -> dict[str, Any]:
    """Returns the body of a chat completion."""
    return {
        "id": f"chatcmpl-{settled.task.id}",
        "object": "chat.completion",
        "created": settled.task.created_at_ms // 1000,
        "model": settled.model,
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.text,
                    **({"tool_calls": choice.tool_calls} if choice.tool_calls else {}),
                },
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(answer.choices)
        ],
        "usage": openai_usage(settled.usage),
        "collegium": collegium_of(settled, trace_id),
    }


def result_headers(settled: SettledMessage) -> list[tuple[bytes, bytes]]:
    """Returns the headers that say who answered and what it cost."""
    return [
        (b"x-collegium-task-id", settled.task.id.encode()),
        (b"x-collegium-model", settled.model.encode("latin-1", "replace")),
        (b"x-collegium-rank", settled.rank.encode()),
        (b"x-collegium-plan", settled.plan.encode()),
        *cache_headers(settled.task),
        (b"x-collegium-cost-usd", picos_to_usd(settled.usage.cost_usd_picos).encode()),
    ]


def cache_headers(task: TaskRef) -> list[tuple[bytes, bytes]]:
    """Returns the headers that say whether an answer is a kept one, and how old it is where it is too old."""
    headers = [(b"x-collegium-cache", task.cache.encode())]
    if task.reused is not None and task.reused.is_stale:
        headers.append((b"x-collegium-cache-stale", b"%d" % task.reused.age_seconds))
    return headers


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as ``GET /v1/tasks/{id}`` shows it."""

    id: str
    state: State
    created_at: str
    settled_at: str | None = None
    output: str | None = None
    choices: list[Any] | None = None
    usage: dict[str, Any] | None = None
    collegium: dict[str, Any] | None = None
    attempts: list[dict[str, Any]] = []
    stop_reason: str | None = None
    partial: bool = False
    error: dict[str, Any] | None = None
    queue_position: int | None = None
    queue_age_ms: int | None = None
    estimated_wait_seconds: float | None = None
    not_before: str | None = None
    model: str = ""
    priority: str = "normal"
    tags: dict[str, str] = {}
    input_required: dict[str, Any] | None = None


def task_view(row: TaskRow, keyring: Keyring) -> TaskView:
    """Returns the view of a read-model row."""
    if row.settled is not None:
        return settled_view(codec.settled.decode(row.settled), keyring, row.trace_id)
    return open_view(_decode_reference(row.reference), row.state)


def reference_of(row: TaskRow) -> TaskRef:
    """Returns what a row says of its task."""
    return _decode_reference(row.reference)


def open_view(task: TaskRef, state: State) -> TaskView:
    """Returns the view of a task that has not settled."""
    return TaskView(
        id=task.id,
        state=state,
        created_at=rfc3339(task.created_at_ms),
        not_before=_not_before(task),
        model=task.model,
        priority=task.priority,
        tags=task.tags,
    )


def queued_view(view: TaskView, position: int, age_ms: int, wait_seconds: float | None) -> TaskView:
    """Returns the view of an open task with where it stands in the queue, as of ``age_ms`` ago."""
    wait = round(wait_seconds, 3) if wait_seconds is not None else None
    return msgspec.structs.replace(view, queue_position=position, queue_age_ms=age_ms, estimated_wait_seconds=wait)


def view_headers(view: TaskView) -> dict[str, str]:
    """Returns the headers of a task as it is shown: where it stands in the queue, or who answered and what it cost."""
    headers = {"x-collegium-task-id": view.id}
    if (about := view.collegium) is not None:
        headers |= {
            "x-collegium-model": about["model"].encode("latin-1", "replace").decode("latin-1"),
            "x-collegium-rank": about["rank"],
            "x-collegium-plan": about["plan"],
            "x-collegium-cache": about["cache"],
            "x-collegium-cost-usd": about["cost_usd"],
        }
        if "stale" in about:
            headers["x-collegium-cache-stale"] = str(about["age_seconds"])
    if view.queue_position is None:
        return headers
    headers |= {
        "x-collegium-queue-position": str(view.queue_position),
        "x-collegium-queue-age-ms": str(view.queue_age_ms),
    }
    if view.estimated_wait_seconds is not None:
        headers["x-collegium-estimated-wait-seconds"] = f"{view.estimated_wait_seconds:g}"
    return headers


def _not_before(task: TaskRef) -> str | None:
    return rfc3339(task.not_before_ms) if task.not_before_ms else None


def settled_view(settled: SettledMessage, keyring: Keyring, trace_id: str) -> TaskView:
    """Returns the view of a settled task, whose journey is of the trace."""
    task = settled.task
    completed = isinstance(settled, TaskCompleted)
    output = settled.output if completed else settled.partial
    # A reused answer whose original is gone has no output left.
    gone = output is not None and not output.key_id
    answer = None if gone else answer_of(keyring, task.tenant, output)
    return TaskView(
        id=task.id,
        state=state_of(settled) or "failed",
        created_at=rfc3339(task.created_at_ms),
        settled_at=rfc3339(settled.settled_at_ms),
        output=answer.choices[0].text if answer is not None else None,
        choices=msgspec.json.decode(msgspec.json.encode(as_shown(answer.choices))) if answer is not None else None,
        usage=usage_of(settled.usage),
        collegium=collegium_of(settled, trace_id),
        attempts=[attempt_view(attempt) for attempt in settled.attempts],
        stop_reason=settled.stop_reason,
        partial=answer is not None and not completed,
        error=error_view(settled) if isinstance(settled, TaskFailed) else None,
        not_before=_not_before(task),
        model=task.model,
        priority=task.priority,
        tags=task.tags,
    )


def stored_view(stored: Stored, keyring: Keyring) -> TaskView:
    """Returns the view of a terminal message as the broker keeps it."""
    return settled_view(codec.settled.decode(stored.payload), keyring, trace_of(stored.headers.get(TRACEPARENT, "")))


def breaker_view(breaker: Breaker | None, now_ms: int) -> dict[str, Any]:
    """Returns a model's circuit breaker: closed, open until a time, or half-open (the next call is a probe)."""
    if breaker is None or not breaker.open_until_ms:
        failures = len(breaker.failures_ms) if breaker is not None else 0
        return {"state": "closed", "open_until": None, "recent_failures": failures}
    state = "open" if now_ms < breaker.open_until_ms else "half_open"
    return {
        "state": state,
        "open_until": rfc3339(breaker.open_until_ms),
        "recent_failures": len(breaker.failures_ms),
    }


def endpoint_view(health: EndpointHealth | None) -> dict[str, Any] | None:
    """Returns how a model's endpoint was found when it was last looked at, none where nobody has."""
    if health is None:
        return None
    return {
        "state": health.state,
        "at": rfc3339(health.at_ms),
        "since": rfc3339(health.since_ms),
        "duration_ms": health.duration_ms,
        "context_tokens": health.context_tokens or None,
        "endpoints": health.endpoints,
    }


def attempt_view(attempt: AttemptUsage) -> dict[str, Any]:
    """Returns one attempt as tasks show it."""
    return {
        "number": attempt.number,
        "model": attempt.model,
        "rank": attempt.rank,
        "duration_ms": attempt.duration_ms,
        "succeeded": attempt.succeeded,
        "error": attempt.error_code or None,
        "wasted": attempt.wasted,
        "usage": usage_of(attempt.usage),
    }


def error_view(failed: TaskFailed) -> dict[str, Any]:
    """Returns a failed task's error as the error bodies show it."""
    kind = kind_of(failed.error.code)
    return {
        "message": failed.error.message,
        "type": kind.type,
        "param": failed.error.param,
        "code": failed.error.gate or failed.error.code,
    }
