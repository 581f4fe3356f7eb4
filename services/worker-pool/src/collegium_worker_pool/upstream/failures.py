"""What an upstream failure means. Pure.

Every way a call can fail becomes one :class:`CallFailed` with a code of the error catalogue, which says whether trying
again can help. One rule: what the endpoint wrote is shown only where it is OpenAI's error message, cut to length;
never a header, a key or a body of another shape, and not where it speaks of the operator's key, which some repeat.
"""

from __future__ import annotations

import msgspec
from collegium_contracts.errors import TaskError

MESSAGE_CHARS = 300


class CallFailed(Exception):  # noqa: N818 - an outcome, not a defect
    """An upstream call that ended without an answer; ``error`` says why."""

    def __init__(self, error: TaskError) -> None:
        super().__init__(error.message)
        self.error = error


class _Inner(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Body(msgspec.Struct):
    error: _Inner | str = ""


def from_status(model: str, status: int, body: bytes, retry_after: str | None) -> TaskError:
    """Maps an HTTP status of 400 or above to an error."""
    said = _said(body)
    code = _code(status, said)
    seconds = float(retry_after) if retry_after is not None and retry_after.replace(".", "", 1).isdigit() else None
    if code == "upstream_auth":
        said = "it does not accept the key of this platform's configuration"
    text = f"the endpoint of model {model} answered {status}" + (f": {said}" if said else "")
    return TaskError(code=code, message=text, upstream_status=status, retry_after_seconds=seconds)


def _code(status: int, said: str) -> str:
    if status == 429:
        return "upstream_rate_limited"
    if status in (401, 403):
        return "upstream_auth"
    if status in (400, 413) and ("context" in said.lower() or "too long" in said.lower()):
        return "context_length_exceeded"
    if status == 408 or status >= 500:
        return "upstream_error"
    return "upstream_rejected"


def _said(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, ValueError):
        return ""
    text = error if isinstance(error, str) else error.message
    return " ".join(text.split())[:MESSAGE_CHARS]


def unreachable(model: str, reason: str) -> TaskError:
    """The endpoint could not be reached, or broke the connection before an answer."""
    return TaskError(code="upstream_unreachable", message=f"the endpoint of model {model} is unreachable ({reason})")


def timed_out(model: str, seconds: float) -> TaskError:
    """The endpoint did not answer within the model's own timeout."""
    return TaskError(
        code="upstream_timeout", message=f"the endpoint of model {model} did not answer within {seconds:g} s"
    )


def garbage(model: str, what: str) -> TaskError:
    """The endpoint answered 200 with something that is no completion."""
    return TaskError(code="upstream_garbage", message=f"the endpoint of model {model} answered with {what}")


def cut(model: str, characters: int) -> TaskError:
    """The stream ended before its end was announced."""
    return TaskError(
        code="upstream_cut", message=f"the endpoint of model {model} cut its stream after {characters} characters"
    )


def deadline(task_id: str, model: str) -> TaskError:
    """The task's deadline passed during the call."""
    return TaskError(
        code="deadline_exceeded", message=f"task {task_id} reached its deadline while model {model} was answering"
    )


def canceled(task_id: str) -> TaskError:
    """The task was canceled during the call."""
    return TaskError(code="canceled", message=f"task {task_id} was canceled")


def hold_expired(task_id: str) -> TaskError:
    """The money held for the task was given back: no call may spend it any more."""
    return TaskError(
        code="hold_expired", message=f"what was held for task {task_id} has been given back; submit it again"
    )


def not_configured(model: str) -> TaskError:
    """This worker's configuration has no endpoint for the model."""
    return TaskError(
        code="endpoint_not_configured",
        message=f"model {model} has no endpoint in this worker's configuration; add it there",
    )


def circuit_open(model: str, retry_after_seconds: float) -> TaskError:
    """The model's circuit breaker is open: its endpoint failed often of late and is left alone for a while."""
    return TaskError(
        code="circuit_open",
        message=f"the endpoint of model {model} failed often of late and is left alone for a while",
        retry_after_seconds=retry_after_seconds,
    )
