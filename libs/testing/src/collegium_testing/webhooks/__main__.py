"""`python -m collegium_testing.webhooks`: the receiver as a process of its own.

Prints `{"ready":true,"url":…}` when it listens, then a JSON line for each request, and ends on SIGTERM or Ctrl-C.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from collegium_testing.webhooks import Received, WebhookReceiver


def main(arguments: list[str] | None = None) -> int:
    """Runs the receiver and returns the exit code: 0 after a signal, 2 if it could not start."""
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.webhooks", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--secret", default="", help="whsec_…, to check signatures with")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(options.secret, options.host, options.port))
    except OSError as problem:
        sys.stderr.write(f"webhooks: {problem}\n")
        return 2
    return 0


async def _serve(secret: str, host: str, port: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    def tell(received: Received) -> None:
        try:
            event = received.event
        except msgspec.DecodeError:
            event = None
        _print({"id": received.id, "verified": received.verified, "path": received.path, "event": event})

    async with WebhookReceiver(secret=secret, host=host, port=port, on_received=tell) as receiver:
        _print({"ready": True, "url": receiver.url})
        await ended.wait()


def _print(line: Mapping[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
