"""Where what belongs to one tenant lies in the broker: the filters that erasure and its tests go by.

One rule: a subject or bucket that names a tenant is found here, or what is erased would not be all.
"""

from __future__ import annotations


def bucket_of(bucket: str, tenant: str) -> tuple[str, str]:
    """The stream of a bucket whose keys begin with the tenant, and the filter of one tenant's keys."""
    return f"KV_{bucket}", f"$KV.{bucket}.{tenant}.>"


def ingress_of(tenant: str) -> tuple[str, ...]:
    """Filters of what waits of one tenant in INGRESS."""
    return (f"task.submitted.*.*.{tenant}", f"task.more.*.*.{tenant}")


def events_of(tenant: str) -> tuple[str, ...]:
    """Filters of everything in EVENTS whose subject names a tenant, what a consumer got again included."""
    firsts = (
        f"attempt.{tenant}.>", f"task.settled.{tenant}.>", f"task.changed.{tenant}.>", f"ctl.cancel.{tenant}.>",
        f"task.input.{tenant}.>", f"feedback.{tenant}.>", f"probe.{tenant}.>",
    )  # fmt: skip
    return (*firsts, *(f"again.*.*.{first}" for first in firsts))


def crons_of(tenant: str) -> str:
    """Filter of one tenant's next firings."""
    return f"schedule.cron.{tenant}.>"


def scheduled_of(tenant: str) -> str:
    """Filter of one tenant's waiting tasks."""
    return f"schedule.task.{tenant}.>"
