"""Making a prompt student of a tenant's verified samples: for which model, what it is told, and what it is shown.

One rule: what is shown are answers of this tenant in this domain that are verified now, and never what is held out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np
from collegium_bus.embed import EmbedClient
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.ranks import as_ranked
from collegium_contracts.state import ModelRecord, Roster
from collegium_learning.distill.selecting import choose
from collegium_learning.prompts.distilling import Made, Verified, distilled
from collegium_learning.prompts.prompt import PromptError

from collegium_evolution.students.opened import Opened

EMBED_SECONDS: Final = 120.0
CHOSEN_MAX: Final = 2_000


def base_of(roster: Roster | None, tenant: str, domain: str, wanted: str) -> str:
    """Returns the model that is to be shown examples: the one that is wanted, or the cheapest below the teachers.

    Raises RequestRefusedError ``no_eligible_model`` where there is none.
    """
    able = [
        as_ranked(model, tenant, domain)
        for model in (roster.models if roster is not None else ())
        if model.enabled
        and not model.drained
        and model.kind == "chat"
        and model.student is None
        and (not model.domains or domain in model.domains)
    ]
    if wanted:
        if all(model.name != wanted for model in able):
            text = f"model {wanted!r} is no model of the roster that may be shown examples in this domain"
            raise RequestRefusedError("no_eligible_model", text, "base")
        return wanted
    dearest = max((_price(model) for model in able if model.rank == "teacher"), default=None)
    cheaper = [model for model in able if model.rank != "teacher" and (dearest is None or _price(model) < dearest)]
    if not cheaper:
        text = "no model of this domain is cheaper than its teachers; name one as the base"
        raise RequestRefusedError("no_eligible_model", text, "base")
    return min(cheaper, key=lambda model: (_price(model), model.name)).name


async def prompted(embed: EmbedClient, tenant: str, samples: Sequence[Opened], base: str) -> Made:
    """Makes a prompt student; raises PromptError where samples make none, BusError where they are not embedded."""
    plain = [one for one in samples if one.question is not None][:CHOSEN_MAX]
    if not plain:
        raise PromptError("no verified sample is one question in words")
    texts = [one.question or "" for one in plain]
    embedded = await embed.embed(tenant, texts, timeout_seconds=EMBED_SECONDS)
    vectors = np.frombuffer(embedded.vectors, "<f4").reshape(len(texts), embedded.dimensions)
    return await asyncio.to_thread(_chosen, plain, vectors, base)


def _chosen(plain: Sequence[Opened], vectors: np.ndarray, base: str) -> Made:
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    texts, answers = [one.question or "" for one in plain], [one.answer for one in plain]
    ids = [one.known.task_id for one in plain]
    places = choose(texts, ids, directions, answers, CHOSEN_MAX).trained
    verified = [
        Verified(texts[place], answers[place], ids[place], plain[place].known.rank == "teacher") for place in places
    ]
    return distilled(verified, directions[places], base)


def _price(model: ModelRecord) -> int:
    return model.price.input_picos + model.price.output_picos
