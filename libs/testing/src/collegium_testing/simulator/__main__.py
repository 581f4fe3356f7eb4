"""`python -m collegium_testing.simulator`: the simulator as a process of its own.

Prints one JSON line when it listens, `{"ready":true,"url":…,"base_url":…,"pid":…}`, and ends on SIGTERM or Ctrl-C.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from collegium_testing.simulator import pool
from collegium_testing.simulator.script import Behaviour, Recording, ScriptError
from collegium_testing.simulator.server import ModelSimulator
from collegium_testing.simulator.tally import MAX_LOGGED_CALLS


def main(arguments: list[str] | None = None) -> int:
    """Runs the simulator and returns the exit code: 0 after a signal, 2 if it could not start."""
    options = _parser().parse_args(arguments)
    try:
        simulator = ModelSimulator(
            host=options.host,
            port=options.port,
            api_key=options.api_key,
            models=options.model,
            default=Behaviour(delay_ms=options.delay_ms, token_delay_ms=options.token_delay_ms),
            script_file=options.script,
            max_logged_calls=options.max_logged_calls,
        )
        if options.pool is not None:
            simulator.record(*_recordings(options.pool, options.prices))
        uvloop.run(_serve(simulator))
    except (ScriptError, OSError, ValueError) as problem:
        sys.stderr.write(f"simulator: {problem}\n")
        return 2
    return 0


async def _serve(simulator: ModelSimulator) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with simulator:
        ready = {"ready": True, "url": simulator.url, "base_url": simulator.base_url, "pid": os.getpid()}
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        await ended.wait()


def _recordings(path: Path, prices: Path | None) -> list[Recording]:
    rows = pool.read_pool(path)
    stated = pool.read_prices(prices) if prices is not None else pool.stated_prices(rows, pool.models_of(rows))
    return pool.recordings_of(pool.rows_of(rows, stated))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m collegium_testing.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", type=Path, metavar="FILE.jsonl", help="recordings and rules, one a line")
    parser.add_argument("--pool", type=Path, metavar="FILE.jsonl", help="a recorded pool whose answers are given again")
    parser.add_argument("--prices", type=Path, metavar="FILE.json", help="what the pool's models cost (pool.py)")
    parser.add_argument("--delay-ms", type=float, default=0, help="before the first byte, unless a rule says more")
    parser.add_argument("--token-delay-ms", type=float, default=0, help="between two stream chunks")
    parser.add_argument("--api-key", metavar="K", help="ask for this key on /v1")
    parser.add_argument("--model", action="append", default=[], help="serve only these names; repeatable")
    parser.add_argument("--max-logged-calls", type=int, default=MAX_LOGGED_CALLS, help="how many calls to remember")
    return parser


if __name__ == "__main__":
    sys.exit(main())
