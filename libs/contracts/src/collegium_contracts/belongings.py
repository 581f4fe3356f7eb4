"""Where what belongs to one tenant lies in the broker: the filters that erasure and its tests go by.

One rule: a subject or bucket that names a tenant is found here, or what is erased would not be all.
"""

from __future__ import annotations

from collegium_contracts.ids import tenant_token


def bucket_of(bucket: str, tenant: str) -> tuple[str, str]:
    """The stream of a bucket whose keys begin with the tenant, and the filter of one tenant's keys."""
    return f"KV_{bucket}", f"$KV.{bucket}.{tenant_token(tenant)}.>"


def ingress_of(tenant: str) -> tuple[str, ...]:
    """Filters of what waits of one tenant in INGRESS."""
    token = tenant_token(tenant)
    return (f"task.submitted.*.*.{token}", f"task.more.*.*.{token}")


def events_of(tenant: str) -> tuple[str, ...]:
    """Filters of everything in EVENTS whose subject names a tenant, what a consumer got again included."""
    token = tenant_token(tenant)
    firsts = (
        f"attempt.{token}.>", f"task.settled.{token}.>", f"task.changed.{token}.>", f"ctl.cancel.{token}.>",
        f"task.input.{token}.>", f"feedback.{token}.>", f"probe.{token}.>",
    )  # fmt: skip
    return (*firsts, *(f"again.*.*.{first}" for first in firsts))


def crons_of(tenant: str) -> str:
    """Filter of one tenant's next firings."""
    return f"schedule.cron.{tenant_token(tenant)}.>"


def scheduled_of(tenant: str) -> str:
    """Filter of one tenant's waiting tasks."""
    return f"schedule.task.{tenant_token(tenant)}.>"
