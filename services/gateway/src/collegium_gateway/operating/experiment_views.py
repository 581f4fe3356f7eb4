"""Experiments and flags as they are shown. One rule: of an instruction its label and length, and no word."""

from __future__ import annotations

from typing import Any

from collegium_contracts.experiment_requests import Effect, ExperimentRow, FlagRow, Look
from collegium_contracts.experiments import Change
from collegium_contracts.money import picos_to_usd

from collegium_gateway.tasks.views import rfc3339


def experiment_view(row: ExperimentRow) -> dict[str, Any]:
    """Returns an experiment with what is known of it, where somebody looked."""
    one = row.running
    return {
        "id": one.id,
        "name": row.name,
        "state": row.state,
        "kind": one.kind,
        "tenant": one.tenant or None,
        "domain": one.domain,
        "model": one.model,
        "unit": one.unit,
        "share": one.share,
        "interleave": one.interleave,
        "control": _change(one.control),
        "candidate": _change(one.candidate),
        "hypothesis": row.hypothesis,
        "guardrails": {name: getattr(row.guardrails, name) for name in row.guardrails.__struct_fields__},
        "level": row.level,
        "margin": row.margin,
        "auto_stop": row.auto_stop,
        "created_at": rfc3339(row.created_at_ms),
        "started_at": _time(row.started_at_ms),
        "ended_at": _time(row.ended_at_ms),
        "winner": row.winner or None,
        "by": row.by or None,
        "look": _look(row.look) if row.look is not None else None,
        "changes": [
            {"at": rfc3339(change.at_ms), "by": change.by, "what": change.what, "reason": change.reason}
            for change in row.changes
        ],
    }


def flag_view(row: FlagRow) -> dict[str, Any]:
    """Returns a flag."""
    flag = row.flag
    return {
        "name": flag.name,
        "tenant": flag.tenant or None,
        "killed": row.killed,
        "kind": flag.kind,
        "change": _change(flag.change),
        "domain": flag.domain,
        "model": flag.model,
        "unit": flag.unit,
        "share": flag.share,
        "changed_at": _time(row.changed_at_ms),
        "by": row.by or None,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "model": change.model or None,
        "policy_version": change.policy_version or None,
        "instruction_bytes": change.instruction_bytes,
        "label": change.label,
        "plan": change.plan or None,
        "members": change.members if change.plan == "panel" else None,
    }


def _look(look: Look) -> dict[str, Any]:
    return {
        "at": rfc3339(look.at_ms),
        "verdict": look.verdict,
        "mismatch_odds": _rounded(look.mismatch_odds),
        "is_mismatched": look.is_mismatched,
        "is_full": look.is_full,
        "arms": [
            {
                "arm": arm.arm,
                "tasks": arm.tasks,
                "units": arm.units,
                "judged": arm.judged,
                "quality": _rounded(arm.quality),
                "errors": _rounded(arm.errors),
                "refusals": _rounded(arm.refusals),
                "p95_ms": _rounded(arm.p95_ms),
                "cost_usd_mean": None if arm.cost_usd_picos is None else picos_to_usd(int(arm.cost_usd_picos)),
            }
            for arm in look.arms
        ],
        "effects": [_effect(effect) for effect in look.effects],
        "interleaved": None if look.interleaved is None else _interleaved(look),
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "metric": effect.metric,
        "units": effect.units,
        "value": _rounded(effect.value),
        "low": _rounded(effect.low),
        "high": _rounded(effect.high),
        "guardrail": effect.guardrail,
        "odds": _rounded(effect.odds),
        "needed": effect.needed,
        "breached": effect.breached,
        "rests_on_one": effect.rests_on_one,
    }


def _interleaved(look: Look) -> dict[str, Any]:
    assert look.interleaved is not None, "only what was asked is shown"
    fields = look.interleaved.__struct_fields__
    return {name: getattr(look.interleaved, name) for name in fields}


def _time(at_ms: int) -> str | None:
    return rfc3339(at_ms) if at_ms else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
