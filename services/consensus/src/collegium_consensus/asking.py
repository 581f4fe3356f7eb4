"""Asking the router for more attempts of a plan.

First a note of why, create-once for each attempt, then the request, into the queue of the tenant's shard: whoever was
killed between the two finds the note, and asks again. What a request says follows from the plan's events alone, and
everything on its way knows a second one by its task and attempt. One rule: consensus says how many and of which rank;
which model and when is the router's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from collegium_bus.errors import AlreadyStandsError
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.ids import shard_of
from collegium_contracts.messages import (
    AttemptAsked,
    AttemptRef,
    AttemptRequested,
    RunAttempt,
    TaskDispatched,
    TaskRef,
    TaskSubmitted,
)
from collegium_contracts.money import Price
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform

from collegium_consensus.course import Ask, Terms

_FREE = Price()


class Asking:
    """Asks for attempts."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def ask(
        self, task: TaskRef, begun: TaskDispatched, ask: Ask, terms: Terms, asked: Sequence[str], traceparent: str
    ) -> None:
        """Notes and requests every attempt of a move; ``asked`` are the models that were asked before.

        Raises QueueFullError where the tenant's queue has no place, BrokerUnavailableError where it cannot be stored.
        """
        headers = {s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant}
        for number in ask.numbers:
            failpoint("consensus.before-ask")
            with contextlib.suppress(AlreadyStandsError):
                await self._platform.publisher.publish(
                    s.attempt_asked(task.tenant, task.id, number),
                    encode(noted(task, begun, number, ask, terms, self._platform.now_ms())),
                    message_id=f"{task.id}.{number}.asked",
                    headers=headers,
                    create_once=True,
                )
            failpoint("consensus.after-note")
            await self._platform.publisher.publish(
                s.task_more(task.priority, shard_of(task.tenant), task.tenant),
                encode(requested(task, begun, number, terms, asked)),
                message_id=f"{task.id}.{number}.0.more",
                headers=headers,
            )
            failpoint("consensus.after-ask")


def noted(task: TaskRef, begun: TaskDispatched, number: int, ask: Ask, terms: Terms, now_ms: int) -> AttemptAsked:
    """Returns the note of why an attempt is asked for."""
    return AttemptAsked(
        task=task,
        number=number,
        of=terms.of,
        plan=terms.plan,
        at_ms=now_ms,
        rank=begun.ranks[number - 1] if begun.ranks else "",
        reason=ask.reason,
        confidence=ask.judgement.confidence if ask.judgement is not None else None,
        threshold=terms.threshold if terms.plan == "cascade" else None,
    )


def requested(
    task: TaskRef, begun: TaskDispatched, number: int, terms: Terms, asked: Sequence[str]
) -> AttemptRequested:
    """Returns the request for an attempt: what it runs is what the first ones ran."""
    submitted = begun.submitted
    assert isinstance(submitted, TaskSubmitted), "a plan of several begins with what it is made from"
    attempt = AttemptRef(
        number=number,
        of=terms.of,
        model="",
        rank=begun.ranks[number - 1] if begun.ranks else "student",
        pool="",
        price=_FREE,
        charge=_FREE,
        plan=terms.plan,
    )
    run = RunAttempt(
        task=task,
        attempt=attempt,
        prompt=submitted.prompt,
        sampling=submitted.sampling,
        prompt_bytes=submitted.prompt_bytes + begun.added_bytes,
        history=begun.history,
        notes=begun.notes,
        try_number=0,
    )
    return AttemptRequested(run=run, asked=list(asked))
