"""The roster of models: what the configuration names, merged with what stands. Pure.

One rule: the file introduces a model; its ranks afterwards are earned, so a standing model keeps them, as it does what
an operator said of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from collegium_contracts import codec
from collegium_contracts.state import ModelRecord, Roster

from collegium_router.roster.bases import with_bases
from collegium_router.roster.prices import repriced

# What the length of a longer list takes more.
ARRAY_BYTES: Final = 8


def merge(standing: Roster | None, configured: Sequence[ModelRecord], now_ms: int) -> Roster:
    """Returns the roster after start-up: every configured model, with the rank it already earned.

    Models that stand and are no longer configured are kept, disabled, so that their history keeps its name; students
    and models that were added never were and need not be. Prompts follow their bases. The version grows only when
    something changed. One that takes the name of a student is another model: nothing that the student was is its.
    """
    known = {model.name: model for model in standing.models} if standing is not None else {}
    own = {name: model for name, model in known.items() if model.student is None}
    merged = [
        _kept(model, own[model.name]) if model.name in own else model
        for model in (repriced(known.get(model.name), model, now_ms) for model in configured)
    ]
    names = {model.name for model in configured}
    merged += [
        model if model.registered or _is_made(model) else msgspec.structs.replace(model, enabled=False)
        for model in known.values()
        if model.name not in names
    ]
    merged = with_bases(merged)
    if standing is not None and merged == standing.models:
        return standing
    return Roster(version=standing.version + 1 if standing is not None else 1, models=merged)


def fitting(roster: Roster, bytes_max: int) -> Roster:
    """Returns a roster with its first models, as many as fit."""
    size, kept = len(codec.encode(msgspec.structs.replace(roster, models=[]))) + ARRAY_BYTES, list[ModelRecord]()
    for model in roster.models:
        size += len(codec.encode(model))
        if size > bytes_max:
            break
        kept.append(model)
    return msgspec.structs.replace(roster, models=kept)


def without(standing: Roster, tenant: str) -> tuple[Roster, int]:
    """Returns the roster without the ranks that were earned for one tenant alone, and how many those were."""
    models = [
        msgspec.structs.replace(model, earned=[one for one in model.earned if one.tenant != tenant])
        for model in standing.models
    ]
    removed = sum(len(model.earned) for model in standing.models) - sum(len(model.earned) for model in models)
    if not removed:
        return standing, 0
    return msgspec.structs.replace(standing, version=standing.version + 1, models=models), removed


def _is_made(model: ModelRecord) -> bool:
    return model.student is not None and model.student.kind in ("head", "prompt")


def _kept(configured: ModelRecord, standing: ModelRecord) -> ModelRecord:
    return msgspec.structs.replace(
        configured,
        rank=standing.rank,
        earned=standing.earned,
        drained=standing.drained,
    )
