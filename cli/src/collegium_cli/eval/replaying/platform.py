"""A platform of its own for a replay: the simulator with the pool's answers, and all services beside it.

One rule: nothing is configured but models, one tenant, how much is asked again, and how often a round of learning is.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NamedTuple

from collegium_cli.bench.stage import child, make_key
from collegium_cli.eval.replaying.pricing import Pool, table_of

TENANT: Final = "replay"


class Learning(NamedTuple):
    """How the platform is to learn: probes' shares of tasks and of what work cost, and a round after so many."""

    shadow_share: float
    audit_share: float
    budget_share: float
    interval: int
    routing: dict[str, Any]


class Running(NamedTuple):
    """A running platform: its address, the tenant's key and the operator's, and the simulator's address."""

    http: str
    key: str
    admin_key: str
    simulator: str


@contextlib.contextmanager
def running(of: Pool, data: Path, learning: Learning) -> Generator[Running]:
    """Runs simulator and platform for the length of a block; ``data`` is the pool's file."""
    with tempfile.TemporaryDirectory(prefix="collegium-replay-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        prices = folder / "prices.json"
        prices.write_text(json.dumps(table_of(of)))
        arguments = ("--pool", str(data.resolve()), "--prices", str(prices))
        simulator = stack.enter_context(child("collegium_testing.simulator", *arguments))
        key = make_key(TENANT)
        config = folder / "collegium.yaml"
        config.write_text(json.dumps(_config(of, simulator["base_url"], key, learning)))
        up = ("up", "--json", "--config", str(config), "--data", str(folder / "data"))
        ready = stack.enter_context(child("collegium_cli", *up))
        admin = Path(ready["admin_key_file"]).read_text().strip()
        yield Running(ready["http"], key, admin, simulator["url"])


def _config(of: Pool, base_url: str, key: str, learning: Learning) -> dict[str, Any]:
    return {
        "http": {"port": 0},
        "grpc": {"port": 0},
        "embedded_model": False,
        "models": [_model(of, name, base_url) for name in of.prices],
        "tenants": [{"id": TENANT, "tier": "enterprise", "api_key": key}],
        "routing": learning.routing,
        "evolution": {
            "interval_queries": learning.interval,
            "probes": {
                "audit_share": learning.audit_share,
                "shadow_share": learning.shadow_share,
                "budget_share": learning.budget_share,
                "account": "operator",
                "all_tenants": True,
                "delay": "1s",
            },
        },
    }


def _model(of: Pool, name: str, base_url: str) -> dict[str, Any]:
    price = of.prices[name]
    return {
        "name": name,
        "base_url": base_url,
        "rank": of.ranks[name],
        "max_output_tokens": of.answer_tokens_max,
        "context_tokens": 1_000_000,
        "price": {
            "input_usd_per_mtok": _money(price.input_usd_per_mtok),
            "output_usd_per_mtok": _money(price.output_usd_per_mtok),
            "call_usd": _money(price.call_usd),
        },
    }


def _money(value: float) -> str:
    return f"{value:.6f}"
