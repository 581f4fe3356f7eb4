"""The durable consumers, as data: who reads which part of which stream.

One rule: every replica of a service shares its service's consumers, and nobody makes others that last.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collegium_contracts import subjects as s
from collegium_contracts.journey import Service


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A durable pull consumer. Its service pulls it; every replica of the service shares it.

    ``ack_wait_seconds`` is a lease, renewed every third of it: what a killed replica had in hand comes again after it.
    A call to a model may be long and costs money to repeat, so work has a longer one than events. ``begins``: where it
    starts when it is made: with all that stands, or (``new``) with what comes then, where nobody waits for the rest.
    """

    durable: str
    stream: str
    service: Service
    filters: tuple[str, ...]
    ack_wait_seconds: float = 6.0
    max_ack_pending: int = 10_000
    max_deliver: int = -1
    begins: Literal["all", "new"] = "all"


def work_consumer(pool: str) -> Consumer:
    """The consumer of one worker pool. Its ``max_deliver`` is a backstop: the worker gives up before."""
    return Consumer(
        durable=f"pool-{pool}",
        stream=s.WORK,
        service="worker-pool",
        filters=(s.work_pool(pool),),
        ack_wait_seconds=20.0,
        max_deliver=8,
    )


CONSUMERS: Final[tuple[Consumer, ...]] = (
    Consumer(
        durable="billing", stream=s.EVENTS, service="billing",
        filters=(
            "attempt.>", s.TASK_SETTLED_ALL, s.TASK_CHANGED_ALL, s.TASK_INPUT_ALL, s.CANCEL_ALL, s.FEEDBACK_ALL,
            s.PROBES_ALL, s.REUSED_ALL, s.again_of("billing"),
        ),
    ),
    Consumer(durable="holds", stream=s.LEDGER, service="billing", filters=(s.LEDGER_JOURNAL_ALL,)),
    Consumer(
        durable="read-model", stream=s.EVENTS, service="gateway",
        filters=(
            s.TASK_SETTLED_ALL, s.TASK_CHANGED_ALL, s.TASK_INPUT_ALL, s.REUSED_ALL, s.again_of("read-model"),
        ),
    ),
    Consumer(
        durable="turns", stream=s.EVENTS, service="context", filters=(s.TASK_SETTLED_ALL, s.again_of("turns")),
    ),
    Consumer(
        durable="verdicts", stream=s.EVENTS, service="consensus",
        filters=(s.ATTEMPT_ENDED_ALL, s.ATTEMPT_TESTED_ALL, s.again_of("verdicts")),
    ),
    Consumer(
        durable="testers", stream=s.EVENTS, service="consensus",
        filters=(s.ATTEMPT_ENDED_ALL, s.again_of("testers")), begins="new",
    ),
    Consumer(
        durable="inputs", stream=s.EVENTS, service="consensus",
        filters=(s.TASK_INPUT_ALL, s.CANCEL_ALL, s.again_of("inputs")),
    ),
    Consumer(durable="schedules", stream=s.SCHEDULE, service="router", filters=(s.SCHEDULE_DUE_ALL,)),
    Consumer(
        durable="scoreboard", stream=s.EVENTS, service="evolution",
        filters=(
            s.TASK_SETTLED_ALL, s.ATTEMPT_ENDED_ALL, s.ATTEMPT_DISCARDED_ALL, s.FEEDBACK_ALL,
            s.PROBES_ALL, s.again_of("scoreboard"),
        ),
    ),
    Consumer(
        durable="sweeper", stream=s.ADVISORIES, service="worker-pool", filters=(s.MAX_DELIVERIES_ALL,),
        ack_wait_seconds=20.0, max_ack_pending=64,
    ),
)  # fmt: skip


def consumer(durable: str) -> Consumer:
    """Returns the declared consumer of this name; a KeyError names one that is not declared."""
    for declared in CONSUMERS:
        if declared.durable == durable:
            return declared
    raise KeyError(durable)
