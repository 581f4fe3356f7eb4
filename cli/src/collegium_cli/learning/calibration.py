"""The verb ``calibration``: what was learned about confidence, and how it holds on answers it was not fitted to."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.state import ConfidenceRecord
from collegium_learning.confidence.policy import EVERYWHERE, ConfidencePolicy, PolicyError, decode_policy
from collegium_settings import Settings

from collegium_cli.environment import quiet_libraries, runtime_of, settings_of
from collegium_cli.printing import failed, print_json, print_table
from collegium_cli.tasks.operator import operator

COLUMNS = (
    "policy",
    "version",
    "made",
    "domain",
    "judged",
    "accuracy",
    "calibration error",
    "stops from",
    "loss at most",
)


def run(options: argparse.Namespace) -> int:
    """Prints the policy that stands; returns the exit code."""
    settings = settings_of(options.config, options.data)
    quiet_libraries()
    try:
        entry = asyncio.run(_read(settings, options.tenant))
        shown = _shown(*entry) if entry is not None else None
    except (BusError, OSError, ContractError, PolicyError) as error:
        return failed("collegium calibration", error)
    if shown is None:
        print("nothing was learned yet: confidence is a stated prior", file=sys.stderr)
    if options.json:
        return print_json(shown)
    return print_table(COLUMNS, [tuple(map(_cell, row.values())) for row in shown["domains"]] if shown else [])


async def _read(settings: Settings, tenant: str) -> tuple[str, ConfidenceRecord, ConfidencePolicy] | None:
    async with operator(settings, runtime_of(settings)) as connection:
        entry = await Bucket(connection, s.KV_POLICY).get(s.confidence_key(tenant))
    if entry is None:
        return None
    record = codec.state.decode(entry.value)
    if not isinstance(record, ConfidenceRecord):
        raise PolicyError(f"{type(record).__name__} is no policy")
    return entry.key, record, decode_policy(record.policy)


def _shown(key: str, record: ConfidenceRecord, policy: ConfidencePolicy) -> dict[str, Any]:
    made = datetime.fromtimestamp(record.made_at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    rows: list[dict[str, Any]] = []
    for domain in sorted({*policy.measured, *policy.promises, EVERYWHERE}):
        measured, promise = policy.measured.get(domain), policy.promises.get(domain)
        rows.append(
            {
                "policy": key,
                "version": record.version,
                "made": made,
                "domain": domain or "(all)",
                "judged": measured.rows if measured is not None else 0,
                "accuracy": measured.accuracy if measured is not None else None,
                "calibration_error": measured.error if measured is not None else None,
                "stops_from": promise.threshold if promise is not None else None,
                "loss_max": promise.loss_max if promise is not None else None,
            }
        )
    members = {domain or "(all)": shares for domain, shares in sorted(policy.right.items())}
    return {"labels": policy.labels, "panels": policy.panels, "domains": rows, "members": members}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
