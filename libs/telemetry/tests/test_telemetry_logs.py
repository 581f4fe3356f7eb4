"""Log lines: one shape for all, levels, and nothing secret in them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from collegium_telemetry.logs import LogLevelError, bind_service, configure_logging, mask_text
from hypothesis import given
from hypothesis import strategies as st

SECRET = "q7" * 24
KEY = f"sk-clg-acmekey1-{SECRET}"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    configure_logging("router", level="info", stream=out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    structlog.get_logger("collegium_router.dispatching.dispatch").info("dispatched\nhere", task="tsk_1", attempts=2)
    (line,) = lines(stream)
    at = line.pop("at")
    assert at.endswith("Z")
    assert line == {
        "level": "info",
        "service": "router",
        "logger": "collegium_router.dispatching.dispatch",
        "event": "dispatched\nhere",
        "task": "tsk_1",
        "attempts": 2,
    }


def test_the_standard_library_goes_the_same_way(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("listening on %s with %s", "8700", KEY)
    logging.getLogger("asyncio").debug("slow")
    (line,) = lines(stream)
    assert (line["service"], line["logger"], line["level"]) == ("router", "uvicorn.error", "warning")
    assert line["event"] == "listening on 8700 with sk-clg-acmekey1-***"


def test_configuring_again_does_not_write_twice(stream: io.StringIO) -> None:
    configure_logging("router", level="error", stream=stream)
    logging.getLogger("x").error("once")
    structlog.get_logger().warning("too quiet")
    assert [line["event"] for line in lines(stream)] == ["once"]


def test_a_task_can_name_its_own_service(stream: io.StringIO) -> None:
    bind_service("billing")
    structlog.get_logger().info("booked")
    assert lines(stream)[0]["service"] == "billing"


def test_no_secret_gets_into_a_line(stream: io.StringIO) -> None:
    log = structlog.get_logger()
    try:
        raise ValueError(f"refused {KEY}")
    except ValueError:
        log.exception("failed")
    event = f"got Authorization: Bearer {SECRET}"
    log.error(
        event,
        api_key=SECRET,
        headers={"Authorization": SECRET, "x-api-key": SECRET, "note": f"Bearer {SECRET}"},
        urls=[f"postgresql://u:{SECRET}@h/d", {KEY: 1}],
        upstream=f"sk-{SECRET}",
        seed="SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
        text="seed SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
        payload=SECRET.encode(),
        error=RuntimeError(KEY),
        deep={"a": {"b": {"c": {"d": {"password": SECRET}}}}},
        input_tokens=5,
        password=None,
    )
    text = stream.getvalue()
    assert SECRET not in text
    assert "SUACSSL3" not in text
    first, second = lines(stream)
    assert "ValueError: refused sk-clg-acmekey1-***" in first["exception"]
    assert second["event"] == "got Authorization: Bearer ***"
    assert (second["api_key"], second["input_tokens"], second["payload"]) == ("***", 5, "<48 bytes>")
    assert second["urls"][0] == "postgresql://u:***@h/d"


def test_the_level_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setenv("COLLEGIUM_LOG_LEVEL", "DEBUG")
    configure_logging("router", stream=stream)
    structlog.get_logger().debug("seen")
    assert len(lines(stream)) == 1
    monkeypatch.setenv("COLLEGIUM_LOG_LEVEL", "loud")
    with pytest.raises(LogLevelError, match="accepted: debug, info"):
        configure_logging("router", stream=stream)


def test_a_terminal_gets_readable_lines(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "isatty", lambda: True)
    configure_logging("router", level="info", stream=stream)
    structlog.get_logger().info("ready", key=KEY)
    try:
        raise ValueError(KEY)
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: sk-clg-acmekey1-***" in stream.getvalue()
    assert "ready" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert SECRET not in stream.getvalue()


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_is_masked_wherever_it_stands(before: str, after: str) -> None:
    assert SECRET not in mask_text(f"{before} {KEY} {after}")
