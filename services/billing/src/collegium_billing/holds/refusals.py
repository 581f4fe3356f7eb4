"""What is told where a task is not let in: whose bound it met, and when there is room again. Pure.

One rule: a refusal says what would do.
"""

from __future__ import annotations

from datetime import UTC, datetime

from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import HoldAnswer, HoldAsk, Rates

from collegium_billing.holds.budgetbook import Budget
from collegium_billing.holds.rates import TooFast


def key_ended(ask: HoldAsk) -> HoldAnswer:
    """The key that a task was asked with lets nobody in any more."""
    message = f"key {ask.key_id} of tenant {ask.tenant}, which it was asked with, was revoked or has expired"
    return HoldAnswer(code="revoked_api_key", message=message)


def slow_down(ask: HoldAsk, too_fast: TooFast, now_ms: int, rates: Rates) -> HoldAnswer:
    """A limit leaves no room."""
    bound = too_fast.bound
    wait_ms = max(1, too_fast.again_at_ms - now_ms)
    code = "quota_exceeded" if bound.name == "requests a day" else "rate_limited"
    whose = f"tenant {ask.tenant}" + (f" or its key {ask.key_id}" if ask.key_id else "")
    return HoldAnswer(
        code=code,
        message=f"{whose} has reached its limit of {bound.limit} {bound.name}; try again in {wait_ms / 1000:.1f} s",
        retry_after_ms=wait_ms,
        rates=rates,
    )


def no_money(ask: HoldAsk, picos: int, budget: Budget, now_ms: int, rates: Rates) -> HoldAnswer:
    """A budget has less left than the ``picos`` that are to be held."""
    renews = budget.renews_at(picos, now_ms)
    when = f"it renews at {datetime.fromtimestamp(renews / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if renews == 0:
        when = "it never holds that much at once: ask for fewer tokens, or have it raised"
    elif renews <= now_ms:
        when = "more of it is free when running requests end"
    left = picos_to_usd(max(0, budget.left(now_ms)))
    return HoldAnswer(
        code="insufficient_quota",
        message=f"{budget.describe()} has {left} USD left, and this request may cost up to"
        f" {picos_to_usd(picos)} USD; {when}",
        retry_after_ms=max(0, renews - now_ms) if renews else 0,
        rates=rates,
    )
