"""The verb ``tap``: messages as they pass, decoded, a line each."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.journey import STREAMS
from collegium_settings import Settings

from collegium_cli.environment import runtime_of
from collegium_cli.stream_reading import operator, read_all

MASKED = "‹sealed, {} bytes›"
_SINCE = re.compile(r"(\d+)([smhd])\Z")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints messages until interrupted; returns the exit code."""
    since = _SINCE.match(options.since) if options.since else None
    if options.since and since is None:
        print("collegium tap: --since takes a number and s, m, h or d, for instance 5m", file=sys.stderr)
        return 2
    seconds = int(since.group(1)) * _UNIT_SECONDS[since.group(2)] if since is not None else 0
    try:
        asyncio.run(_tap(settings, options, seconds))
    except (BusError, TimeoutError) as error:
        print(f"collegium tap: {error}", file=sys.stderr)
        return 1
    return 0


async def _tap(settings: Settings, options: argparse.Namespace, since_seconds: int) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with operator(settings, runtime_of(settings)) as connection:

        def show(subject: bytes, _reply: bytes, payload: bytes, _block: bytes | None) -> None:
            line = render(subject.decode(), payload, options)
            if line is not None:
                print(line, flush=True)

        if since_seconds:
            start = (datetime.now(UTC) - timedelta(seconds=since_seconds)).isoformat().replace("+00:00", "Z")
            for stream in STREAMS:
                if any(overlaps(options.subject, subject) for subject in stream.subjects):
                    for delivery in await read_all(connection, stream.name, [options.subject], start_time=start):
                        show(delivery.subject.encode(), b"", delivery.payload, None)
        connection.client.subscribe_raw(options.subject, show)
        await connection.flush()
        await stopping.wait()


def overlaps(one: str, other: str) -> bool:
    """Whether two subject filters can match the same subject."""
    for left, right in zip(one.split("."), other.split("."), strict=False):
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return one.count(".") == other.count(".")


def render(subject: str, payload: bytes, options: argparse.Namespace) -> str | None:
    """Returns a message's line; none where the tenant or task asked for is another."""
    if options.tenant and options.tenant not in subject.split("."):
        return None
    if options.task and options.task not in subject.split("."):
        return None
    if options.raw:
        return f"{subject} {payload!r}"
    if subject.startswith(s.INTERNAL_PREFIXES):
        return f"{subject} {len(payload)} bytes"
    try:
        message = codec.journey.decode(payload)
    except ContractError as error:
        return f"{subject} undecodable ({error.code}): {payload[:80]!r}"
    shown = _shown(msgspec.to_builtins(message, builtin_types=(bytes,)), content=options.content)
    if options.json:
        return msgspec.json.encode({"subject": subject, "message": shown}).decode()
    return f"{subject} {msgspec.json.encode(shown).decode()}"


def _shown(value: Any, *, content: bool) -> Any:
    """Masks sealed contents, and makes bytes readable."""
    if isinstance(value, dict):
        if value.keys() == {"key_id", "nonce", "body"}:
            body: bytes = value["body"]
            return body.decode(errors="replace") if content else MASKED.format(len(body))
        return {name: _shown(part, content=content) for name, part in value.items()}
    if isinstance(value, list):
        return [_shown(part, content=content) for part in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace") if content else MASKED.format(len(value))
    return value
