"""Soft targets: what a model might have said in place of each token, as probabilities at a temperature. Pure.

After Hinton, Vinyals and Dean (2015): a higher temperature tells more of what was nearly said. One rule: probabilities
of a token are over the alternatives that were told, and add up to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

TEMPERATURE_MIN = 0.05
TEMPERATURE_MAX = 20.0


def softened(alternatives: Sequence[tuple[str, float]], temperature: float) -> dict[str, float]:
    """Returns the probabilities of a token's alternatives (token, log-probability) at a temperature; of a token that is
    told twice the likelier counts. Raises ValueError for a temperature out of bounds."""
    if not TEMPERATURE_MIN <= temperature <= TEMPERATURE_MAX:
        raise ValueError(f"a temperature is {TEMPERATURE_MIN:g} to {TEMPERATURE_MAX:g}")
    best: dict[str, float] = {}
    for token, logprob in alternatives:
        if not math.isnan(logprob):
            best[token] = max(best.get(token, -math.inf), logprob)
    if not best:
        return {}
    top = max(best.values())
    if math.isinf(top):
        return {}
    weights = {token: math.exp((logprob - top) / temperature) for token, logprob in best.items()}
    total = sum(weights.values())
    return {token: round(weight / total, 6) for token, weight in weights.items()}


def targets(likely: Sequence[Sequence[tuple[str, float]]], temperature: float) -> list[dict[str, Any]]:
    """Returns an answer's tokens, each with the one that was likeliest and the probabilities of all told."""
    found: list[dict[str, Any]] = []
    for alternatives in likely:
        probabilities = softened(alternatives, temperature)
        if probabilities:
            token = max(probabilities, key=lambda one: (probabilities[one], one))
            found.append({"token": token, "probabilities": probabilities})
    return found
