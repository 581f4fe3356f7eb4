"""Logs: one JSON object a line on standard error (readable lines on a terminal), secrets masked.

structlog's loggers and the standard library's (uvicorn, nats, asyncio) go through the same chain. Fields: ``at``,
``level``, ``service``, ``logger``, ``event`` and what the caller gave. The level comes from COLLEGIUM_LOG_LEVEL.
One rule: masking is the last step before a line is written, so that nothing gets past it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

LEVEL_VARIABLE: Final = "COLLEGIUM_LOG_LEVEL"
MASK: Final = "***"
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_SECRET_KEY = re.compile(
    r"(?:^|[_.-])(?:api[_-]?key|password|passwd|secret|authorization|token|creds|credentials|seed|private[_-]?key)$",
    re.IGNORECASE,
)
_API_KEY = re.compile(r"sk-clg-([a-z0-9]{1,16})-[A-Za-z0-9]+")
_OTHER_KEY = re.compile(r"\bsk-(?!clg-)[A-Za-z0-9_-]{8,}")
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
_NKEY_SEED = re.compile(r"\bS[ANOUCPX][A-Z2-7]{56}\b")
_DEPTH_MAX = 4

Event = MutableMapping[str, Any]


class LogLevelError(ValueError):
    """COLLEGIUM_LOG_LEVEL names no level."""

    code = "invalid_log_level"


class _Writer:
    """What structlog calls a logger: writes finished lines. ``name`` is the module's."""

    __slots__ = ("_stream", "name")

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        """Writes one line in one piece."""
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()

    debug = info = warning = warn = error = exception = critical = fatal = log = msg


class _Bridge(logging.Handler):
    """Hands records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a record; what cannot be formatted is reported as logging does."""
        try:
            fields: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
            structlog.get_logger(record.name).log(record.levelno, record.getMessage(), **fields)
        except Exception:  # noqa: BLE001, RUF100 - a log line must not end what wrote it
            self.handleError(record)


def configure_logging(service: str, *, level: str | None = None, stream: TextIO | None = None) -> None:
    """Sets up logging of the process: level from the argument, else COLLEGIUM_LOG_LEVEL, else info.

    Raises LogLevelError for an unknown level. A task that belongs to another service of the same process says so with
    :func:`bind_service`.
    """
    number = _level(level or os.environ.get(LEVEL_VARIABLE) or "info")
    terminal = (stream or sys.stderr).isatty()

    def name_it(_logger: Any, _method: str, event: Event) -> Event:
        event.setdefault("service", service)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_logger,
            name_it,
            structlog.processors.TimeStamper("iso", utc=True, key="at"),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            mask_event,
            _console() if terminal else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: _Writer(str(names[0]) if names else "", stream),
        # Loggers are made at import, before this runs; a cached one would keep the defaults.
        cache_logger_on_first_use=False,
    )
    _route_standard_library(number)


def bind_service(service: str) -> None:
    """Names the service of this task, and of the tasks it starts, in their log lines."""
    structlog.contextvars.bind_contextvars(service=service)


def mask_event(_logger: Any, _method: str, event: Event) -> Event:
    """Masks values under keys that name secrets, and keys, tokens and passwords inside texts."""
    for key, value in event.items():
        event[key] = _mask_value(key, value, _DEPTH_MAX)
    return event


def mask_text(text: str) -> str:
    """Masks API keys (their public id stays), bearer tokens, NKey seeds and passwords in URLs."""
    text = _API_KEY.sub(rf"sk-clg-\1-{MASK}", text)
    text = _OTHER_KEY.sub(f"sk-{MASK}", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _NKEY_SEED.sub(MASK, text)
    return _URL_PASSWORD.sub(rf"\1:{MASK}@", text)


def _mask_value(key: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        # Short of text a secret is nothing, and counts are called tokens too.
        return value
    if _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _mask_container(key, value, depth) if depth else f"<{type(cast('object', value)).__name__}>"
    return mask_text(str(value))


def _mask_container(key: str, value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {mask_text(str(name)): _mask_value(str(name), one, depth - 1) for name, one in pairs}
    return [_mask_value(key, one, depth - 1) for one in cast("list[Any]", value)]


def _add_logger(logger: Any, _method: str, event: Event) -> Event:
    if isinstance(logger, _Writer) and logger.name:
        event.setdefault("logger", logger.name)
    return event


def _render_json(_logger: Any, _method: str, event: Event) -> str:
    first = {key: event.pop(key) for key in ("at", "level", "service", "logger", "event") if key in event}
    return msgspec.json.encode({**first, **event}, enc_hook=str).decode()


def _console() -> structlog.dev.ConsoleRenderer:
    # Other formatters print local variables, and expect tracebacks that have not been masked yet.
    plain = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(timestamp_key="at", exception_formatter=plain)


def _level(name: str) -> int:
    number = LEVELS.get(name.lower())
    if number is None:
        raise LogLevelError(f"{LEVEL_VARIABLE} is {name!r}; accepted: {', '.join(LEVELS)}")
    return number


def _route_standard_library(number: int) -> None:
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(number)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "faststream", "nats"):
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    # One line a request is what traces and metrics are for.
    for chatty in ("uvicorn.access", "alembic"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))
