"""Budgets as they are asked for and kept: what may be charged in a window. Pure.

Here: the checks of one budget's values. Not here: what holding against it means. One rule: an amount is read from its
decimal text as whole pico-dollars, exactly, or refused; nothing is rounded.
"""

from __future__ import annotations

from typing import Final

import msgspec
from collegium_contracts.identity import BudgetSet
from collegium_contracts.ids import BUDGET_ID, KEY_ID
from collegium_contracts.money import picos_to_usd
from collegium_contracts.state import MAX_BUDGET_PICOS, BudgetRecord
from collegium_settings.money import usd_to_picos

from collegium_billing.errors import QuestionError
from collegium_billing.identity.tenancy import Standing

BUDGETS_MAX: Final = 200  # of one tenant; each is looked at by every hold that it concerns
WINDOW_SECONDS: Final = (60, 400 * 86_400)
ALERTS_MAX: Final = 10
PERCENT_MAX: Final = 1_000


def read(asked: BudgetSet) -> BudgetRecord:
    """Returns the budget that is asked for; raises QuestionError with the field at fault."""
    budget_id = asked.budget or _default_id(asked)
    if BUDGET_ID.match(budget_id) is None:
        raise _invalid("id", "a budget's id has 1 to 64 characters of a-z, 0-9 and -")
    if (asked.scope == "tenant") != (asked.of == ""):
        raise _invalid("of", "a budget of a project or key names it; one of the tenant names nothing more")
    low, high = WINDOW_SECONDS
    if not low <= asked.window_seconds <= high:
        raise _invalid("window", f"a rolling window has {low} to {high} seconds")
    alerts = sorted(set(asked.alert_percents))
    if len(alerts) > ALERTS_MAX or any(not 1 <= percent <= PERCENT_MAX for percent in alerts):
        raise _invalid("alert_percents", f"at most {ALERTS_MAX} shares, each of 1 to {PERCENT_MAX} percent")
    return BudgetRecord(
        id=budget_id,
        scope=asked.scope,
        of=asked.of,
        limit_picos=_limit(asked.usd),
        window=asked.window,
        window_seconds=asked.window_seconds,
        alert_percents=alerts,
    )


def check(standing: Standing, budget: BudgetRecord, now_ms: int) -> None:
    """Raises QuestionError where a tenant cannot have this budget: of something it has not, or one too many."""
    if budget.scope == "project" and all(one.id != budget.of for one in standing.projects):
        raise QuestionError("not_found", f"tenant {standing.tenant.id} has no project {budget.of[:40]}", "of")
    if budget.scope == "key" and not any(key.first == budget.of and key.lives(now_ms) for key in standing.keys):
        raise QuestionError("not_found", f"tenant {standing.tenant.id} has no live key {budget.of[:16]}", "of")
    others = [one for one in standing.budgets if one.id != budget.id]
    if len(others) >= BUDGETS_MAX:
        raise _invalid("tenant", f"tenant {standing.tenant.id} has {BUDGETS_MAX} budgets, the most it may have")


def of_lineage(standing: Standing, budget: BudgetRecord) -> BudgetRecord:
    """Returns a budget of a key as that of its lineage, which all keys draw on that follow each other by rotation."""
    key = standing.key(budget.of) if budget.scope == "key" else None
    if key is None or not key.lineage:
        return budget
    name = name_of(key.first) if budget.id == name_of(key.id) else budget.id
    return msgspec.structs.replace(budget, id=name, of=key.first)


def find(standing: Standing, budget_id: str) -> BudgetRecord | None:
    """Returns a budget by its id; that of a key is known by the ids of all keys of its lineage."""
    names = {budget_id} | {name_of(key.first) for key in standing.keys if name_of(key.id) == budget_id}
    return next((one for one in standing.budgets if one.id in names), None)


def name_of(key_id: str) -> str:
    """Returns the id that a key's budget has unless another is given."""
    return f"key-{key_id}"


def key_of(budget_id: str) -> str | None:
    """Returns the key of which a budget's id speaks, or none."""
    found = budget_id.removeprefix("key-")
    return found if found != budget_id and KEY_ID.match(found) is not None else None


def _default_id(asked: BudgetSet) -> str:
    return asked.scope if asked.scope == "tenant" else f"{asked.scope}-{asked.of}"


def _limit(usd: str) -> int:
    try:
        picos = usd_to_picos(usd)
    except ValueError:
        raise _invalid("usd", "usd is a decimal text with at most 12 decimals, such as 25.00") from None
    if not 0 < picos <= MAX_BUDGET_PICOS:
        raise _invalid("usd", f"usd lies above 0 and is at most {picos_to_usd(MAX_BUDGET_PICOS)}")
    return picos


def _invalid(param: str, message: str) -> QuestionError:
    return QuestionError("invalid_value", message, param)
