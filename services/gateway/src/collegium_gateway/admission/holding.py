"""Admission: the most a task may cost is held, and its request counted, before it is submitted.

One rule: a task that is refused here was never submitted, and one that could not be submitted gives its hold back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from collegium_bus.errors import BrokerUnavailableError, NoAnswerError
from collegium_bus.holding import Holds
from collegium_contracts.messages import TaskRef, TaskSubmitted
from collegium_contracts.openplans import as_planned
from collegium_contracts.requests import HoldAnswer, HoldAsk, Rates
from collegium_contracts.worstcase import GRACE_MS, counted_tokens, least_picos, worst_picos
from collegium_runtime.platform import Platform

from collegium_gateway.errors import ApiError
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.reuse.hits import Hits

OnRates = Callable[[Rates], None]

_RATE_LIMITS = ("rate_limited", "quota_exceeded")


class Admission:
    """Holds for one gateway."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory
        self._holds = Holds(platform.connection)
        self.hits = Hits(self._holds, time.monotonic)

    async def admit(
        self, submitted: TaskSubmitted, on_rates: OnRates | None = None, *, stores: bool = False
    ) -> TaskSubmitted:
        """Returns the task with its hold; raises ApiError ``insufficient_quota``, ``rate_limited``,
        ``quota_exceeded``, ``storage_full``, or ``billing_unavailable`` where nobody could decide in time.

        ``stores``: it leaves more behind than a plain chat; so does every turn of a conversation.
        """
        task, models = submitted.task, self._directory.models
        expires_ms = task.deadline_ms + GRACE_MS
        ask = HoldAsk(
            task=task.id,
            tenant=task.tenant,
            project=task.project,
            key_id=task.key_id,
            tier=task.tier,
            picos=worst_picos(self._longest(submitted), models),
            tokens=counted_tokens(submitted, models),
            expires_at_ms=expires_ms,
            stores=stores or bool(task.conversation),
            checks=bool(task.checks),
            picos_least=least_picos(self._longest(submitted), models) if task.open_to else 0,
        )
        try:
            answer = await self._holds.ask(ask)
        except NoAnswerError as error:
            raise ApiError(
                "billing_unavailable", f"task {task.id} was not submitted: billing gave no answer; try again"
            ) from error
        self.hits.learn(task.tenant, task.key_id, answer.rates)
        _tell(answer, on_rates)
        if answer.is_least:
            # No budget covers what its plan may become, so it becomes what is covered.
            task = as_planned(submitted, "single").task
        return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, hold_expires_ms=expires_ms))

    def _longest(self, submitted: TaskSubmitted) -> TaskSubmitted:
        """Returns a task with the longest prompt that an experiment may make of its own."""
        added = self._directory.trials.added_bytes(submitted.task)
        return msgspec.structs.replace(submitted, prompt_bytes=submitted.prompt_bytes + added) if added else submitted

    async def count(self, task: TaskRef, on_rates: OnRates | None = None) -> None:
        """Counts an answer that stands already as a request; raises ApiError ``rate_limited`` or ``quota_exceeded``."""
        rates = self.hits.take(task.tenant, task.key_id)
        if rates is not None:
            if on_rates is not None:
                on_rates(rates)
        elif (answer := await self.hits.ask(task)) is not None:
            _tell(answer, on_rates)

    def standing_headers(
        self, principal: Principal | None, told: list[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """Returns the rates that were heard of last, for a refusal that was not counted and so ``told`` of none."""
        if principal is None or any(name.startswith(b"x-ratelimit-") for name, _ in told):
            return []
        rates = self.hits.heard(principal.tenant, principal.key_id)
        return [] if rates is None else rate_headers(rates)

    def give_back(self, submitted: TaskSubmitted, error: BaseException) -> None:
        """Gives a hold back where the task was surely not submitted; else it stands until it expires."""
        if not isinstance(error, BrokerUnavailableError):
            self._holds.release(submitted.task.tenant, submitted.task.id)


def _tell(answer: HoldAnswer, on_rates: OnRates | None) -> None:
    """Tells the rates; raises ApiError for a refusal."""
    if on_rates is not None:
        on_rates(answer.rates)
    if answer.code:
        retry = answer.retry_after_ms / 1000 if answer.code in _RATE_LIMITS else None
        raise ApiError(answer.code, answer.message, retry_after_seconds=retry)


def rate_headers(rates: Rates) -> list[tuple[bytes, bytes]]:
    """Returns the ``x-ratelimit-…`` headers of what there is a limit on."""
    found: list[tuple[bytes, bytes]] = []
    bounds = (
        (b"requests", rates.limit_requests, rates.remaining_requests, rates.reset_requests_ms),
        (b"tokens", rates.limit_tokens, rates.remaining_tokens, rates.reset_tokens_ms),
    )
    for name, limit, remaining, reset_ms in bounds:
        if limit:
            found += [
                (b"x-ratelimit-limit-" + name, b"%d" % limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
                (b"x-ratelimit-reset-" + name, duration(reset_ms)),
            ]
    return found


def duration(milliseconds: int) -> bytes:
    """Writes a time as OpenAI's headers do: ``250ms``, ``58s``, ``6m0s``, ``23h59m0s``."""
    if milliseconds < 1_000:
        return b"%dms" % milliseconds
    seconds = -(-milliseconds // 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
