"""Structured logs: JSON lines on standard error (a readable form on a terminal), secrets masked.

One rule: what looks like a key or a bearer token never reaches the output, wherever it stood.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRETS = re.compile(
    r"(sk-clg-[a-z0-9]{8,16}-)[a-z0-9]{16,}|((?i:bearer)\s+)[A-Za-z0-9._~+/=-]{8,}|\b(sk-)[A-Za-z0-9_-]{16,}"
)
_PASSWORD_IN_URL = re.compile(r"(\w+://[^:/@\s]+:)[^@\s]+(@)")
_SECRET_FIELDS = frozenset({"api_key", "password", "secret", "authorization", "token", "seed", "creds"})
MASK = "***"


def mask(text: str) -> str:
    """Returns a text with everything masked that looks like a key, a token or a password in a URL."""
    text = _SECRETS.sub(lambda match: (match.group(1) or match.group(2) or match.group(3) or "") + MASK, text)
    return _PASSWORD_IN_URL.sub(rf"\1{MASK}\2", text)


def mask_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks secrets in every string of a log event."""
    for name, value in event.items():
        if name in _SECRET_FIELDS:
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = mask(value)
    return event


def configure_logging(service: str) -> None:
    """Sets up structlog and the standard library's logging for a process; the level is COLLEGIUM_LOG_LEVEL (info)."""
    level = getattr(logging, os.environ.get("COLLEGIUM_LOG_LEVEL", "info").upper(), logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        rendering: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        rendering = [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[
            *shared,
            _bind_service(service),
            structlog.processors.format_exc_info,
            mask_event,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _bind_service(service),
                structlog.processors.format_exc_info,
                mask_event,
                *rendering,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _bind_service(service: str) -> Any:
    def bind(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return bind
