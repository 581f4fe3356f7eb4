"""Prompt students follow their bases: the same price, place and bounds, under a name and a rank of their own. Pure.

Whoever writes the roster writes it through here, so that everybody else reads plain models. One rule: a student whose
base may not be asked may not be asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from collegium_contracts.state import ModelRecord
from collegium_contracts.worstcase import SHOWN_BYTES_PER_TOKEN


def with_bases(models: Sequence[ModelRecord]) -> list[ModelRecord]:
    """Returns the models, each prompt student as its base is now."""
    by_name = {model.name: model for model in models}
    return [as_base(model, by_name.get(model.student.base)) if is_prompt(model) and model.student else model
            for model in models]  # fmt: skip


def is_prompt(model: ModelRecord) -> bool:
    """Whether a model is another one that is shown examples first."""
    return model.student is not None and model.student.kind == "prompt"


def upstream_of(model: ModelRecord) -> str:
    """Returns under whose name a model's calls count upstream: a prompt student's are its base's."""
    return model.student.base if model.student is not None and is_prompt(model) else model.name


def may_be_base(model: ModelRecord | None) -> bool:
    """Whether a model may be shown examples."""
    return model is not None and model.student is None and model.kind == "chat" and model.enabled


def as_base(model: ModelRecord, base: ModelRecord | None) -> ModelRecord:
    """Returns a prompt student as its base is, disabled where that may not be asked."""
    if base is None or not may_be_base(base):
        return msgspec.structs.replace(model, enabled=False)
    added = model.student.prompt_bytes // SHOWN_BYTES_PER_TOKEN + 1 if model.student is not None else 0
    return msgspec.structs.replace(
        base,
        name=model.name,
        rank=model.rank,
        earned=model.earned,
        domains=model.domains,
        drained=model.drained,
        fallbacks=[],
        configured=None,
        registered=False,
        context_tokens=max(1, base.context_tokens - added),
        student=model.student,
    )
