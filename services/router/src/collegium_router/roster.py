"""The roster of models: what the configuration names, merged with what stands. Pure.

One rule: the file introduces a model; its rank afterwards is earned, so a standing model keeps its rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from collegium_contracts.state import ModelRecord, Roster

from collegium_router.prices import repriced


def merge(standing: Roster | None, configured: Sequence[ModelRecord], now_ms: int) -> Roster:
    """Returns the roster after start-up: every configured model, with the rank it already earned.

    Models that stand and are no longer configured are kept, disabled, so that their history keeps its name. The version
    grows only when something changed.
    """
    known = {model.name: model for model in standing.models} if standing is not None else {}
    merged = [
        msgspec.structs.replace(model, rank=known[model.name].rank) if model.name in known else model
        for model in (repriced(known.get(model.name), model, now_ms) for model in configured)
    ]
    names = {model.name for model in configured}
    merged += [msgspec.structs.replace(model, enabled=False) for model in known.values() if model.name not in names]
    if standing is not None and merged == standing.models:
        return standing
    return Roster(version=standing.version + 1 if standing is not None else 1, models=merged)
