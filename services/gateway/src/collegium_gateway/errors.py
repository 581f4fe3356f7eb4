"""Errors of the gateway.

    ApiError    everything a client is told: a code of the error catalogue, a message, and the parameter concerned

Other libraries' errors are turned into ApiError where they arise (``from_bus``); anything else is a defect, answered
as ``internal_error`` and logged. One rule: a message names the id concerned and what to do, and shows no secret.
"""

from __future__ import annotations

from collegium_bus.errors import BusError, QueueFullError, RequestRefusedError
from collegium_contracts.errors import UNSTORABLE, ErrorKind, TaskError, kind_of


class ApiError(Exception):
    """What a client is told; ``code`` is a key of the error catalogue, ``gate`` the rule that refused."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        task_id: str = "",
        gate: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.task_id = task_id
        self.gate = gate

    @property
    def shown_code(self) -> str:
        """The code that a client is told: the name of the rule where a gate refused."""
        return self.gate or self.code

    @property
    def kind(self) -> ErrorKind:
        """HTTP status, error type and gRPC status of the code."""
        return kind_of(self.code)


def from_task(error: TaskError, task_id: str) -> ApiError:
    """Returns the error of a failed task as its client is told."""
    return ApiError(
        error.code,
        error.message,
        param=error.param,
        retry_after_seconds=error.retry_after_seconds,
        task_id=task_id,
        gate=error.gate,
    )


def unstorable() -> ApiError:
    """Returns what a client is told whose text the database refused; doors refuse what they know to be a name."""
    return ApiError("invalid_value", UNSTORABLE)


def from_bus(error: BusError, what: str) -> ApiError:
    """Returns what a client is told when the broker, or a service behind it, refused or was away."""
    if isinstance(error, RequestRefusedError):
        return ApiError(error.code, error.message, param=error.param)
    if isinstance(error, QueueFullError):
        return ApiError(
            "tenant_queue_full",
            f"{what}: the queue of this tenant and priority is full; try again later",
            retry_after_seconds=1,
        )
    return ApiError("broker_unavailable", f"{what} could not be stored; try again later", retry_after_seconds=5)
