"""Errors of the contracts, and the catalogue of error codes that leave the platform.

    ContractError
    ├── UndecodableMessageError    bytes that are no message of ours
    ├── UnknownVersionError        a message of a newer major version
    ├── InvalidIdError             an id that cannot stand in a subject or key
    └── UnknownKeyError            (envelope.py) content sealed with a key that is not held

``ERRORS`` is the only place where an outward code, its HTTP status, its gRPC status and whether trying again can help
are written down; doors, workers and dead letters all read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# What an asker is told whose text a database refused.
UNSTORABLE = "a name or a text holds NUL, which cannot be stored; leave it out"


class ContractError(Exception):
    """Base of the errors of this package; ``code`` is stable."""

    code = "contract_error"


class UndecodableMessageError(ContractError):
    """The bytes are not a message of the expected kind."""

    code = "undecodable_message"


class UnknownVersionError(ContractError):
    """The message was written by a newer major version than this process can read."""

    code = "unknown_version"


class InvalidIdError(ContractError, ValueError):
    """An id is none, so that no subject, filter or key may be made with it: it might name what is another's."""

    code = "invalid_value"


ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "insufficient_quota",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
    "upstream_error",
    "service_unavailable",
    "deadline_exceeded",
    "canceled",
    "internal_error",
    "input_required",
]


class ErrorKind(msgspec.Struct, frozen=True):
    """How one outward error code is shown: HTTP status, OpenAI error type, gRPC status name, and its retry family."""

    http_status: int
    type: ErrorType
    grpc_status: str
    retryable: bool = False


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong with a task or an attempt, as it travels and as it is shown.

    ``code`` is a key of :data:`ERRORS`; ``message`` names the id concerned and what to do, and holds no secret and no
    content; ``upstream_status`` is the HTTP status of the model's endpoint where there was one;
    ``gate`` is the rule that ended it, which its client is told for a code.
    """

    code: str
    message: str
    param: str | None = None
    upstream_status: int | None = None
    retry_after_seconds: float | None = None
    gate: str | None = None


_INVALID = ErrorKind(400, "invalid_request_error", "INVALID_ARGUMENT")
_AUTH = ErrorKind(401, "authentication_error", "UNAUTHENTICATED")

ERRORS: dict[str, ErrorKind] = {
    # A client is told the rule's name in its place.
    "gate_blocked": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    "unknown_gate": _INVALID,
    "malformed_json": _INVALID,
    "invalid_value": _INVALID,
    "unknown_model": _INVALID,
    "deadline_in_past": _INVALID,
    "invalid_price": _INVALID,
    "unsupported_plan": _INVALID,
    "unsupported_option": _INVALID,
    "callback_address_refused": _INVALID,
    "missing_api_key": _AUTH,
    "invalid_api_key": _AUTH,
    "revoked_api_key": _AUTH,
    "insufficient_quota": ErrorKind(402, "insufficient_quota", "RESOURCE_EXHAUSTED"),
    "hold_expired": ErrorKind(402, "insufficient_quota", "RESOURCE_EXHAUSTED"),
    "invalid_token": _AUTH,
    "expired_token": _AUTH,
    "insufficient_scope": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    "insufficient_role": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    "tenant_suspended": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    "feature_not_in_tier": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    "model_not_allowed": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    # No 429: clients try that again by themselves, and time alone frees nothing here.
    "storage_full": ErrorKind(403, "insufficient_quota", "RESOURCE_EXHAUSTED"),
    "not_found": ErrorKind(404, "not_found_error", "NOT_FOUND"),
    "method_not_allowed": ErrorKind(405, "invalid_request_error", "UNIMPLEMENTED"),
    "task_not_settled": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    # No 409: clients try that again by themselves, and a second try asks nobody anything new.
    "input_required": ErrorKind(428, "input_required", "FAILED_PRECONDITION"),
    "approval_denied": ErrorKind(403, "permission_error", "PERMISSION_DENIED"),
    "input_expired": ErrorKind(504, "deadline_exceeded", "DEADLINE_EXCEEDED"),
    "unknown_queue": _INVALID,
    "no_question": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "already_answered": ErrorKind(409, "conflict_error", "ALREADY_EXISTS"),
    "claimed_by_another": ErrorKind(409, "conflict_error", "ABORTED"),
    "too_many_questions": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "task_terminal": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "already_exists": ErrorKind(409, "conflict_error", "ALREADY_EXISTS"),
    "price_overlap": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "task_not_terminal": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "input_not_kept": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "idempotency_conflict": ErrorKind(409, "conflict_error", "ALREADY_EXISTS"),
    "idempotency_in_progress": ErrorKind(409, "conflict_error", "ABORTED"),
    "too_many_ranks": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "nothing_to_roll_back": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "policy_conflict": ErrorKind(409, "conflict_error", "ABORTED"),
    "cycle_running": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "too_many_students": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "experiment_conflict": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "experiment_state": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "too_many_experiments": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "too_few_samples": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "probe_failed": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "roster_too_large": ErrorKind(422, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    "model_address_refused": _INVALID,
    "model_configured": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "no_worker": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "router_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "invalid_head": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "head_unsure": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "document_empty": ErrorKind(422, "invalid_request_error", "INVALID_ARGUMENT"),
    "document_undecodable": ErrorKind(422, "invalid_request_error", "INVALID_ARGUMENT"),
    "document_too_large": ErrorKind(413, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    "document_too_deep": ErrorKind(422, "invalid_request_error", "INVALID_ARGUMENT"),
    "document_too_costly": ErrorKind(422, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    "version_conflict": ErrorKind(409, "conflict_error", "ABORTED"),
    "memory_off": ErrorKind(409, "conflict_error", "FAILED_PRECONDITION"),
    "memory_full": ErrorKind(422, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    "body_too_large": ErrorKind(413, "invalid_request_error", "RESOURCE_EXHAUSTED"),
    "context_length_exceeded": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "schedule_too_large": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "budget_too_small": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "no_eligible_model": ErrorKind(422, "invalid_request_error", "FAILED_PRECONDITION"),
    "model_quota_exceeded": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "rate_limited": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "quota_exceeded": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "tenant_queue_full": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "idempotency_full": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "too_many_waiting": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "too_many_scheduled": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED", retryable=True),
    "too_many_schedules": ErrorKind(429, "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "canceled": ErrorKind(499, "canceled", "CANCELLED"),
    "internal_error": ErrorKind(500, "internal_error", "INTERNAL"),
    "upstream_rejected": ErrorKind(502, "upstream_error", "FAILED_PRECONDITION"),
    "upstream_auth": ErrorKind(502, "upstream_error", "FAILED_PRECONDITION"),
    "endpoint_not_configured": ErrorKind(502, "upstream_error", "FAILED_PRECONDITION"),
    "upstream_rate_limited": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "upstream_error": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "upstream_unreachable": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "upstream_timeout": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "upstream_garbage": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "upstream_cut": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "circuit_open": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "no_verdict": ErrorKind(502, "upstream_error", "UNAVAILABLE", retryable=True),
    "attempts_exhausted": ErrorKind(502, "upstream_error", "UNAVAILABLE"),
    "embedder_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "context_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "vector_store_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "billing_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "head_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "evolution_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "token_keys_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "audit_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "broker_unavailable": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "schedules_full": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "not_ready": ErrorKind(503, "service_unavailable", "UNAVAILABLE", retryable=True),
    "deadline_exceeded": ErrorKind(504, "deadline_exceeded", "DEADLINE_EXCEEDED"),
}


def kind_of(code: str) -> ErrorKind:
    """Returns how a code is shown; a code that is not in the catalogue is an internal error."""
    return ERRORS.get(code) or ERRORS["internal_error"]
