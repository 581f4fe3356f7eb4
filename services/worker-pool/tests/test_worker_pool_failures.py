"""What an upstream failure means, and what of it is told."""

import msgspec
import pytest
from collegium_contracts.errors import ERRORS, kind_of
from collegium_worker_pool.upstream import failures

SECRET = "sk-live-0123456789abcdef"  # gitleaks:allow


def said(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "t", "code": None}})


@pytest.mark.parametrize(
    ("status", "message", "code", "retryable"),
    [
        (400, "temperature is out of range", "upstream_rejected", False),
        (400, "This model's maximum context length is 4096 tokens", "context_length_exceeded", False),
        (400, "the prompt is Too Long", "context_length_exceeded", False),
        (413, "request too long", "context_length_exceeded", False),
        (413, "no", "upstream_rejected", False),
        (401, "", "upstream_auth", False),
        (403, "the context is closed to you", "upstream_auth", False),
        (402, "no credit", "upstream_rejected", False),
        (404, "no such model", "upstream_rejected", False),
        (408, "", "upstream_error", True),
        (422, "context", "upstream_rejected", False),
        (429, "context", "upstream_rate_limited", True),
        (500, "context", "upstream_error", True),
        (502, "", "upstream_error", True),
        (503, "", "upstream_error", True),
        (529, "overloaded", "upstream_error", True),
    ],
)
def test_a_status_becomes_a_code_that_says_whether_to_try_again(status, message, code, retryable):
    error = failures.from_status("m", status, said(message), None)
    assert (error.code, error.upstream_status) == (code, status)
    assert ERRORS[error.code].retryable is retryable
    assert "model m" in error.message
    assert str(status) in error.message
    assert message in error.message or code == "upstream_auth"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("7", 7.0), ("0.5", 0.5), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("", None), ("-3", None)],
)
def test_retry_after_is_read_where_it_is_a_number(header, seconds):
    assert failures.from_status("m", 429, b"", header).retry_after_seconds == seconds


@pytest.mark.parametrize(
    "body",
    [
        f"<html>{SECRET}</html>".encode(),
        msgspec.json.encode({"detail": SECRET}),
        msgspec.json.encode([SECRET]),
        msgspec.json.encode({"error": {"message": 5, "key": SECRET}}),
        SECRET.encode(),
        b"",
        b"\xff\xfe" + SECRET.encode(),
    ],
)
def test_a_body_of_another_shape_is_not_shown(body):
    error = failures.from_status("m", 500, body, None)
    assert SECRET not in error.message
    assert error.message == "the endpoint of model m answered 500"


@pytest.mark.parametrize("status", [401, 403])
def test_what_an_endpoint_says_of_the_operators_key_is_not_shown(status):
    error = failures.from_status("m", status, said(f"Incorrect API key provided: {SECRET}"), None)
    assert SECRET not in error.message
    assert "configuration" in error.message


def test_the_endpoints_message_is_cut_to_one_line_of_bounded_length():
    text = failures.from_status("m", 400, said("a\n b\t" + "x" * 10_000), None).message
    assert "a b xxx" in text
    assert len(text) < failures.MESSAGE_CHARS + 60
    plain = failures.from_status("m", 400, msgspec.json.encode({"error": "just text"}), None)
    assert plain.message.endswith(": just text")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (failures.unreachable("m", "ClientConnectorError"), "upstream_unreachable"),
        (failures.timed_out("m", 45), "upstream_timeout"),
        (failures.garbage("m", "no choices"), "upstream_garbage"),
        (failures.cut("m", 12), "upstream_cut"),
        (failures.deadline("tsk_m", "m"), "deadline_exceeded"),
        (failures.canceled("tsk_m"), "canceled"),
        (failures.not_configured("m"), "endpoint_not_configured"),
    ],
)
def test_every_failure_has_a_code_of_the_catalogue_and_names_what_failed(error, code):
    assert error.code == code
    assert error.code in ERRORS
    assert "m" in error.message
    assert error.message


def test_the_outward_statuses_are_the_contracts():
    assert {kind_of(code).http_status for code in ("upstream_error", "upstream_timeout", "upstream_cut")} == {502}
    assert kind_of("deadline_exceeded").http_status == 504
    assert kind_of("context_length_exceeded").http_status == 422
