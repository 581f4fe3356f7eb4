"""What a request may cost at most, as its client states it. Pure.

One rule: it is a promise about the charge, so what could come to more by its price, its prompt's length and its
``max_tokens`` is refused or given to a cheaper model, however cheap it may turn out to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.money import picos_to_usd
from collegium_contracts.plans import SEVERAL
from collegium_contracts.state import ModelRecord
from collegium_contracts.worstcase import candidates, worst_picos
from collegium_settings.money import PICOS_PER_USD, usd_to_picos

from collegium_gateway.errors import ApiError

PARAM: Final = "budget_usd_max"
USD_MAX: Final = 1_000_000


def budget_picos(text: str | None) -> int:
    """Returns what a request may cost (pico-dollars), 0 where it says nothing; raises ApiError ``invalid_value``."""
    if text is None:
        return 0
    try:
        picos = usd_to_picos(text)
    except ValueError:
        picos = 0
    if not 0 < picos <= USD_MAX * PICOS_PER_USD:
        reason = f"budget_usd_max is a decimal string above zero, with at most 12 decimals, at most {USD_MAX}"
        raise ApiError("invalid_value", reason, param=PARAM)
    return picos


def check_budget(submitted: TaskSubmitted, models: Sequence[ModelRecord]) -> None:
    """Raises ApiError ``budget_too_small`` where no model that may answer, or not the whole plan, surely fits."""
    task = submitted.task
    if not task.cost_max_picos:
        return
    if task.plan in SEVERAL:
        fits = worst_picos(submitted, models) <= task.cost_max_picos
        least = worst_picos(submitted, models)
    else:
        fits = bool(candidates(submitted, models))
        least = _least(submitted, models)
    if not fits:
        raise ApiError(
            "budget_too_small",
            f"this may come to {picos_to_usd(least)} USD at the least bound there is, more than "
            f"{picos_to_usd(task.cost_max_picos)}: raise budget_usd_max, or lower max_tokens",
            param=PARAM,
        )


def _least(submitted: TaskSubmitted, models: Sequence[ModelRecord]) -> int:
    free = msgspec.structs.replace(submitted, task=msgspec.structs.replace(submitted.task, cost_max_picos=0))
    return min((worst_picos(free, [model]) for model in candidates(free, models)), default=0)
