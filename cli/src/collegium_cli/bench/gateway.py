"""``collegium bench gateway``: what a call through the platform costs beside a direct one.

One run starts the model simulator, an OTLP receiver and a whole platform on free ports, then loads the simulator
directly, the platform, and a peer where one is given, in turn at each number of clients, so that all share the
machine's mood. One rule: the same load tool, the same body, the same upstream for all.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from collegium_cli.bench.processes import memory_mb
from collegium_cli.bench.stage import child

READY_SECONDS = 120
BODY = {
    "model": "sim",
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}],
}
# Every call is the same, and none may be answered from what an earlier one got.
UNCACHED: dict[str, Any] = {"collegium": {"cache": "off"}}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: numbers of clients, seconds each, the share of calls traced, and a peer's base URL and key."""

    clients: tuple[int, ...] = (1, 16, 64)
    seconds: float = 5.0
    sample_ratio: float = 0.1
    peer_url: str = ""
    peer_key: str = ""
    peer_model: str = "sim"
    simulator_port: int = 0


def run(options: Options) -> dict[str, Any]:
    """Measures and returns the figures: by number of clients, one report per target and the added p50."""
    key = f"sk-clg-bench{secrets.token_hex(3)}-" + "".join(secrets.choice(_ALPHABET) for _ in range(48))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collegium-bench-")))
        port = ["--port", str(options.simulator_port)]
        simulator = stack.enter_context(child("collegium_testing.simulator", *port, "--model", "sim"))
        receiver = stack.enter_context(child("collegium_testing.otlp", "--port", "0"))
        config = folder / "collegium.yaml"
        config.write_text(json.dumps(_config(options, simulator, receiver, key)))
        up = stack.enter_context(
            child("collegium_cli", "up", "--json", "--config", str(config), "--data", str(folder / "data"))
        )
        targets = {
            "direct": (f"{simulator['base_url']}/chat/completions", "", "sim"),
            "collegium": (f"{up['http']}/v1/chat/completions", key, "sim"),
        }
        if options.peer_url:
            url = options.peer_url.rstrip("/") + "/v1/chat/completions"
            targets["peer"] = (url, options.peer_key, options.peer_model)
        return {
            "clients": {str(count): _round(folder, targets, count, options.seconds) for count in options.clients},
            "sample_ratio": options.sample_ratio,
            "memory_mb": memory_mb(up["pids"]),
        }


def _config(options: Options, simulator: dict[str, Any], receiver: dict[str, Any], key: str) -> dict[str, Any]:
    return {
        "http": {"port": 0},
        "grpc": {"port": 0},
        "embedded_model": False,
        "telemetry": {"otlp_endpoint": receiver["endpoint"], "sample_ratio": options.sample_ratio},
        "models": [
            {
                "name": "sim",
                "base_url": simulator["base_url"],
                "rank": "teacher",
                "price": {"input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60"},
            }
        ],
        "tenants": [{"id": "bench", "tier": "enterprise", "api_key": key}],
    }


def _round(folder: Path, targets: dict[str, tuple[str, str, str]], clients: int, seconds: float) -> dict[str, Any]:
    reports: dict[str, Any] = {}
    for name, (url, key, model) in targets.items():
        print(f"  {clients:>3} clients, {name} …", file=sys.stderr, flush=True)
        more = UNCACHED if name == "collegium" else {}
        reports[name] = load(folder, url, key, model, clients, seconds, more)
    direct = reports["direct"]["p50_ms"]
    for name, report in reports.items():
        report["added_p50_ms"] = round(report["p50_ms"] - direct, 3)
        report["share_of_direct_rate"] = round(
            report["requests_per_second"] / max(1.0, reports["direct"]["requests_per_second"]), 4
        )
        failed = sum(count for status, count in report["statuses"].items() if status != "200")
        report["failed"] = failed
        reports[name] = report
    return reports


def load(
    folder: Path, url: str, key: str, model: str, clients: int, seconds: float, more: dict[str, Any]
) -> dict[str, Any]:
    """Loads a URL with one body (``BODY``, with ``more`` in it) by the load tool and returns its report."""
    body = folder / "body.json"
    body.write_text(json.dumps({**BODY, "model": model, **more}))
    command = [sys.executable, "-m", "collegium_testing.load", "--url", url, "--body", str(body)]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    if key:
        command += ["--header", f"Authorization: Bearer {key}"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def table(figures: dict[str, Any]) -> str:
    """Returns the figures as a table for people."""
    lines = ["clients  target          req/s   p50 ms   p90 ms   p99 ms  added p50  failed"]
    for clients, reports in figures["clients"].items():
        for name, report in reports.items():
            latencies = " ".join(f"{report[column]:>8.2f}" for column in ("p50_ms", "p90_ms", "p99_ms"))
            lines.append(
                f"{clients:>7}  {name:<10} {report['requests_per_second']:>10.0f} {latencies}"
                f" {report['added_p50_ms']:>10.2f} {report['failed']:>7}"
            )
    return "\n".join(lines)


def parse_clients(text: str) -> Sequence[int]:
    """Reads a comma-separated list of numbers of clients."""
    return tuple(int(part) for part in text.split(","))


def main(options: Any) -> int:
    """Runs the verb ``bench gateway`` and prints the figures; returns the exit code."""
    figures = run(
        Options(
            clients=tuple(parse_clients(options.clients)),
            seconds=options.seconds,
            sample_ratio=options.sample_ratio,
            peer_url=options.peer_url,
            peer_key=options.peer_key,
            peer_model=options.peer_model,
            simulator_port=options.simulator_port,
        )
    )
    print(json.dumps(figures) if options.json else table(figures))
    return 0
