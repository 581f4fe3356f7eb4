"""Subjects of what is asked about learning and judging, of evolution, router and gateway, and keys of what was learned.

subjects.py hands them on, and nobody else reads them here.
"""

from __future__ import annotations

from typing import Final

from collegium_contracts.ids import tenant_token

SVC_CONTEXT_FEATURES: Final = "svc.context.features"
CONFIDENCE_KEY: Final = "confidence"
SVC_ROUTER_MODEL: Final = "svc.router.model"
SVC_ROUTER_STUDENT: Final = "svc.router.student"
SVC_ROUTER_PROBES_ALL: Final = "svc.router.probes.*"
SVC_EVOLUTION_BOARD: Final = "svc.evolution.board"
SVC_EVOLUTION_RANKS: Final = "svc.evolution.ranks"
SVC_EVOLUTION_CYCLES: Final = "svc.evolution.cycles"
SVC_EVOLUTION_GAPS: Final = "svc.evolution.gaps"
SVC_EVOLUTION_POLICIES: Final = "svc.evolution.policies"
SVC_EVOLUTION_STUDENTS: Final = "svc.evolution.students"
SVC_EVOLUTION_DOMAINS: Final = "svc.evolution.domains"
SVC_EVOLUTION_EXPERIMENTS: Final = "svc.evolution.experiments"
SVC_EVOLUTION_ALL: Final = "svc.evolution.*"
SVC_GATEWAY_JUDGE: Final = "svc.gateway.judge"
PROBES_ALL: Final = "probe.>"


def probes_of_shard(shard: int) -> str:
    """Subject on which a shard's owner is asked to ask a fine-tuned model what it was not trained on."""
    return f"svc.router.probes.{shard}"


def probe(tenant: str, task: str) -> str:
    """Subject of ProbeCompared; ``task`` is the probe."""
    return f"probe.{tenant_token(tenant)}.{task}"


def confidence_key(tenant: str) -> str:
    """Key of what was learned about confidence: of a tenant, or (empty) of all together."""
    return f"{CONFIDENCE_KEY}.{tenant_token(tenant)}" if tenant else CONFIDENCE_KEY
