"""Subjects and the bucket of models that operators add while the platform runs; handed on by subjects.py."""

from __future__ import annotations

from typing import Final

KV_ENDPOINTS: Final = "endpoints"
SVC_ROUTER_ROSTER: Final = "svc.router.roster"
SVC_WORKERS_PROBE_ALL: Final = "svc.workers.probe.*"


def svc_workers_probe(pool: str) -> str:
    """Subject on which the workers of a pool are asked what an endpoint can do."""
    return f"svc.workers.probe.{pool}"
